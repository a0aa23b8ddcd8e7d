#!/usr/bin/env python3
"""The report: the paper's tables and figures beside our results, as one HTML page and as Markdown.

Reads the records under experiments/results/ and writes report.html (self-contained), report.md and pictures/ there.
Nothing is trained; what was not trained stays empty.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.catalogue import catalogue
from experiments.records import Record, check_commits, read_records, results_folder
from experiments.report_curves import learning_curves, scatter
from experiments.report_figures import figure2, figure3, figure4
from experiments.report_pictures import Picture
from experiments.report_results import Result, collect, epochs_of, plural
from experiments.report_tables import DATASETS, differences, make_tables
from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.files import write_files

FIGURES = (
    ("2", "The complementary condition", figure2),
    ("3", "The number of group convolutions L", figure3),
    ("4", "Wider and deeper", figure4),
)


def check_sources(results: dict[str, Result], allowed: bool) -> list[str]:
    """Which tables and figures show results of several commits, or of uncommitted code.

    Raises Invalid, naming them and what to do, unless `allowed`.
    """
    found = []
    for table in dict.fromkeys(run.table for run in catalogue().values()):
        shown = {r.path: r for result in results.values() if result.run.table == table for r in result.records}
        try:
            check_commits(table, shown.values())
        except Invalid as error:
            found.append(str(error))
    if found and not allowed:
        raise Invalid(
            "; ".join(found) + ": remove the records of all commits but one and train these runs again, "
            "or pass --allow-mixed-commits, and the report says so"
        )
    return found


def summary(results: dict[str, Result]) -> dict:
    """What the head of the report says: how much was trained, on which schedules, machines and commits."""
    trained = [result for result in results.values() if result.records and not result.run.same_as]
    records = [record for result in trained for record in result.records]
    schedules = {}
    for result in trained:
        schedules.setdefault(epochs_of(result.epochs, result.run.epochs), []).append(result)
    return {
        "runs": sum(not result.run.same_as for result in results.values()),
        "trained": len(trained),
        "trainings": len(records),
        "hours": sum(record.train_seconds for record in records) / 3600,
        "full": sum(not result.short for result in trained),
        "schedules": {name: _scope(found) for name, found in schedules.items()},
        "machines": _unique(machine(record) for record in records),
        "commits": _unique(record.code for record in records),
        "libraries": _unique(", ".join(f"{k} {v}" for k, v in record.versions.items()) for record in records),
        "shorter": sum(len(result.shorter) for result in trained),
    }


def _scope(found: list[Result]) -> str:
    """'table 4 (2 runs, 2 seeds), figure 2 (7 runs, 1 seed)'."""
    parts = {}
    for result in found:
        parts.setdefault((result.run.table, len(result.records)), []).append(result)
    return ", ".join(
        f"{table[:-1]} {table[-1]} ({plural(len(runs), 'run')}, {plural(seeds, 'seed')}{' each' * (len(runs) > 1)})"
        for (table, seeds), runs in parts.items()
    )


def machine(record: Record) -> str:
    """'AMD EPYC, AVX-512, 2 threads of 4 cores, 8 GB', with the GPU in front if there is one."""
    has = record.hardware.get
    threads = f"{plural(has('threads'), 'thread')} of {plural(has('cores'), 'core')}" if has("threads") else ""
    memory = f"{has('memory_gb'):g} GB" if has("memory_gb") else ""
    parts = (has("gpu"), has("cpu"), has("instructions"), threads, memory)
    return ", ".join(part for part in parts if part) or "unknown"


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def render(results: dict[str, Result], mixed: list[str]) -> tuple[dict[str, str], list[Picture]]:
    """The texts of report.html and report.md by their names, and the pictures of the latter. Raises Invalid."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise Invalid("the report needs Jinja2: pip install 'caffe-igc[experiments]', or jinja2") from None
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=lambda name: name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = [(number, title, make(results)) for number, title, make in FIGURES]
    scatters = scatter(results)
    values = {
        "summary": summary(results),
        "mixed": mixed,
        "tables": make_tables(results),
        "differences": list(differences(results)),
        "figures": figures,
        "scatter": scatters,
        "curves": learning_curves(results),
        "trained": [result for result in results.values() if result.records and not result.run.same_as],
        "machine": machine,
        "datasets": DATASETS.values(),
    }
    texts = {name: templates.get_template(name).render(values) for name in ("report.html", "report.md")}
    return texts, [picture for _, _, pictures in figures for picture in pictures] + scatters


def write(texts: dict[str, str], pictures: list[Picture], folder: Path) -> None:
    files = {folder / name: text.encode() for name, text in texts.items()}
    write_files(files | {folder / "pictures" / f"{picture.name}.png": picture.png for picture in pictures})


@command
def main(argv=None):
    parser = Parser(prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, metavar="DIR", help="the records (default: experiments/results)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: beside the records)")
    parser.add_argument(
        "--allow-mixed-commits", action="store_true", help="show results of several commits in one table, and say so"
    )
    args = parser.parse_args(argv)
    folder = args.results or results_folder()
    if args.results and not folder.is_dir():
        raise Invalid(f"--results {folder}: no such folder")
    results = collect(read_records(folder))
    mixed = check_sources(results, args.allow_mixed_commits)
    texts, pictures = render(results, mixed)
    out = args.out or folder
    write(texts, pictures, out)
    head = summary(results)
    print(f"{head['trained']} of {head['runs']} runs trained: {out}/report.html, {out}/report.md")


if __name__ == "__main__":
    raise SystemExit(main())
