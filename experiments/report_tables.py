"""Tables 2 to 7 with the paper's numbers and ours, as rows of text that both Markdown and HTML show."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from experiments.report_results import Result, size
from prototxt_gen.architectures import ARCHITECTURES
from prototxt_gen.summary import PLAIN_TABLES, paper_tables

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "tiny-imagenet": "Tiny ImageNet"}

OWN_SYSTEM = "IGC-V2*-C416"  # row of table 7

TITLES = {
    "table2": "IGC-V2 and Xception, 8 layers, several widths",
    "table3": "Xception, IGC-V1 and IGC-V2*, 20 layers, several widths",
    "table4": "IGC-V2 and Xception, several depths",
    "table5": "IGC-V1 and two designs of IGC-V2, 8 layers, several widths",
    "table6": "IGC-V2 and IGC-V1, several depths",
    "table7": "Small models of others, classification error in percent",
}


@dataclass(frozen=True)
class Pair:
    """A number of the paper and ours. note: seeds and epochs of ours; short: on fewer epochs than the paper's."""

    paper: str = ""
    ours: str = ""
    note: str = ""
    short: bool = False


@dataclass(frozen=True)
class Row:
    """group: title of the rows from here on, where a new group begins."""

    group: str | None
    network: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def number(self) -> str:
        return self.name.removeprefix("table")


@dataclass(frozen=True)
class Difference:
    """By how many percent points of accuracy IGC-V2 is better than a network that the paper sets it against.

    error: standard error of ours; None where one of both has one seed only.
    """

    table: str
    setting: str
    network: str
    other: str
    paper: float
    ours: float
    error: float | None
    schedule: str

    @property
    def text(self) -> str:
        return f"{self.ours:+.2f}" + (f" ± {self.error:.2f}" if self.error is not None else "")


def mean_and_deviation(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def network_title(arch: str, width: int) -> str:
    return ARCHITECTURES[arch].title.format(width=width)


def make_tables(results: dict[str, Result]) -> list[Table]:
    return [_table(name, title, results) for name, title in TITLES.items()]


def _table(name: str, title: str, results: dict[str, Result]) -> Table:
    sizes = ("#Params (×10⁶)", "FLOPs (×10⁸)")
    if name in PLAIN_TABLES:
        sizes = ("#Params of a block", "FLOPs of a block (×10⁶)")
    printed = list(_printed_rows(name, results))
    rows, last = [], ""
    for group, row, found in printed:
        pairs = [*_sizes(name, row, found), *(_accuracy(row, dataset, result) for dataset, result in found.items())]
        rows.append(Row(group if group != last else None, _network(row), tuple(pairs)))
        last = group
    datasets = [DATASETS[dataset] for dataset in printed[0][2]]
    return Table(name, title, (*sizes[: len(rows[0].pairs) - len(datasets)], *datasets), tuple(rows))


def _printed_rows(table: str, results: dict[str, Result]) -> Iterator[tuple[str, dict, dict[str, Result | None]]]:
    """(group, row of the paper, result by data set) of a table; the systems of others have no result."""
    paper = paper_tables()[table]
    for index, row in enumerate(paper["rows"]):
        found = {}
        for dataset in DATASETS:
            if dataset in row:
                wanted = _wanted(table, row, row.get("depth", paper.get("depth")), dataset)
                found[dataset] = next((r for r in results.values() if _key(r) == wanted), None)
        yield _group(table, row, index), row, found


def _key(result: Result) -> tuple:
    run = result.run
    return run.table, run.arch, run.width, run.depth, run.dataset


def _wanted(table: str, row: dict, depth: int, dataset: str) -> tuple:
    if row.get("system") == OWN_SYSTEM:
        return table, "igcv2star", 416, depth, dataset
    return table, row.get("arch"), row.get("C"), depth, dataset


def _network(row: dict) -> str:
    return f"{row['system']}, D = {row['depth']}" if "system" in row else network_title(row["arch"], row["C"])


def _group(table: str, row: dict, index: int) -> str:
    if table in PLAIN_TABLES:
        return f"about {row['params']:,} params"
    if table == "table3":
        return ("small", "medium", "large")[index // 3]
    if table == "table7":
        return "systems of others" if row["system"] != OWN_SYSTEM else "this paper's"
    return f"D = {row['depth']}"


def _sizes(table: str, row: dict, found: dict[str, Result | None]) -> list[Pair]:
    """#Params and FLOPs, the same for CIFAR and Tiny ImageNet, whose images the first convolution halves."""
    result = next(iter(found.values()))
    ours = size(result.run) if result else None
    if table in PLAIN_TABLES:
        return [
            Pair(f"≈ {row['params']:,}", f"{ours.block_params:,}"),
            Pair(f"≈ {row['flops'] / 1e6:g}", f"{ours.block_flops / 1e6:.2f}"),
        ]
    if table == "table7":
        return [Pair(str(row["params"]), f"{ours.params / 1e6:.3f}" if ours else "")]
    decimals = 2 if table == "table3" else 3  # as printed
    return [
        Pair(f"{row['params']:.{decimals}f}", f"{ours.params / 1e6:.3f}"),
        Pair(f"{row['flops']:.{decimals}f}", f"{ours.flops / 1e8:.3f}"),
    ]


def _accuracy(row: dict, dataset: str, result: Result | None) -> Pair:
    """Table 7 has errors, without deviations."""
    error, printed = "system" in row, row[dataset]
    if error:
        paper = "" if printed is None else f"{printed:.2f}"
    else:
        paper = mean_and_deviation(*printed)
    if not result or result.accuracy is None:
        return Pair(paper)
    mean = 100 - result.accuracy if error else result.accuracy
    return Pair(paper, mean_and_deviation(mean, result.deviation), result.schedule, result.short)


def differences(results: dict[str, Result]) -> Iterator[Difference]:
    """IGC-V2, last of its group, against each other network of it, in tables 2 to 6: those trained alike."""
    for table in TITLES:
        groups: dict[tuple, list[Result]] = {}
        for group, row, found in _printed_rows(table, results):
            for dataset, result in found.items() if "arch" in row else ():
                groups.setdefault((dataset, group), []).append(result)
        for *others, best in groups.values():
            yield from (_difference(best, other) for other in others if _trained_alike(best, other))


def _trained_alike(one: Result, other: Result) -> bool:
    return bool(one.records and other.records) and one.epochs == other.epochs


def _difference(best: Result, other: Result) -> Difference:
    variances = [r.deviation**2 / len(r.records) for r in (best, other) if r.deviation is not None]
    run = best.run
    return Difference(
        run.table,
        f"{DATASETS[run.dataset]}, D = {run.depth}",
        network_title(run.arch, run.width),
        network_title(other.run.arch, other.run.width),
        run.paper - other.run.paper,
        best.accuracy - other.accuracy,
        math.sqrt(sum(variances)) if len(variances) == 2 else None,
        best.schedule if best.schedule == other.schedule else f"{best.schedule}; {other.schedule}",
    )
