"""What make_net prints about a network: its counts beside the paper's, and what theory says about its blocks."""

import functools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

from google.protobuf import text_format

from prototxt_gen.architecture import Options, Plan, make_plan
from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import count_net
from prototxt_gen.conditions import report
from prototxt_gen.layer_shapes import Shape
from prototxt_gen.proto import pb
from prototxt_gen.solver import LEAST_OF_TEST, MOST_OF_TEST, batch_of_test

PLAIN_TABLES = ("table2", "table5")  # these nets do not down-sample, and their counts are of one block


@functools.cache
def paper_tables() -> dict:
    """The tables of the paper as data."""
    return json.loads((Path(__file__).parent / "data" / "tables.json").read_text())


def summarize(arch: str, options: Options, plan: Plan, train_val: str, image: Shape) -> dict:
    """Counts are taken from the prototxt, all else from the plan. image: C x H x W."""
    net = text_format.Parse(train_val, pb.NetParameter())
    counts = count_net(net, image=image)
    first = next(layer for layer in counts.layers if layer.convolution_weights)
    return {
        "title": plan.title,
        "layers": len(counts.layers),
        **counts.totals(),
        "first_outputs": math.prod(first.tops[0][2:]),  # height x width of the first blocks
        "paper": paper_rows(arch, options, plan),
        "blocks": block_rows(plan),
    }


def block_rows(plan: Plan) -> list[dict]:
    """One row for each run of equal blocks."""
    rows = []
    for block in plan.blocks:
        found = _report(block.convolutions)
        if rows and rows[-1]["facts"] is found:
            rows[-1]["last"] = block.name
        else:
            rows.append({"first": block.name, "last": block.name, "facts": found})
    return [
        {"first": row["first"], "last": row["last"], "verdict": row["facts"].verdict, **asdict(row["facts"])}
        for row in rows
    ]


_report = functools.cache(report)


def paper_rows(arch: str, options: Options, plan: Plan) -> list[dict]:
    """The table rows that this network stands in, with the printed #Params and FLOPs in plain numbers."""
    rows = []
    for name, table in paper_tables().items():
        for row in table.get("rows", []) if isinstance(table, dict) else []:
            if row.get("C") != options.width or row.get("depth", table.get("depth")) != options.depth:
                continue
            plain = name in PLAIN_TABLES
            unit_params, unit_flops = (1, 1) if plain else (1e6, 1e8)
            if _is_row(row["arch"], arch, options, plan, plain):
                rows.append(
                    {
                        "table": name,
                        "counts": "one block" if plain else "network",
                        "params": round(row["params"] * unit_params),
                        "flops": round(row["flops"] * unit_flops),
                    }
                )
    return rows


def _is_row(row_arch: str, arch: str, options: Options, plan: Plan, plain: bool) -> bool:
    """True if the architecture of the row, left to its defaults, has the same convolutions."""
    if row_arch not in (arch, {"igcv2-II": "igcv2", "igcv2": "igcv2-II"}.get(arch)):
        return False
    default = Options(width=options.width, depth=options.depth, downsampling=not plain)
    readings = [default, replace(default, layers_from="first-stage")] if arch == "igcv2star" else [default]
    own = (plan.first.outputs, *plan.units)
    for reading in readings:
        try:
            row_plan = make_plan(row_arch, reading, plan.first.inputs, plan.first.stride)
        except Invalid:
            continue
        if own == (row_plan.first.outputs, *row_plan.units):
            return True
    return False


def print_summary(summary: dict):
    schedule = summary["schedule"]
    print(
        f"{summary['title']}, depth {summary['depth']}, {summary['dataset']}: "
        f"{summary['layers']} layers ({summary['engine']})"
    )
    block = summary["blocks"][0]["parameters"]
    print(
        f"  #Params {summary['params']:,} ({summary['params'] / 1e6:.3f} M)   FLOPs {summary['flops']:,} "
        f"({summary['flops'] / 1e8:.3f} x 10^8)   all learned parameters {summary['learned']:,}"
    )
    for row in summary["paper"]:
        if row["counts"] == "one block":
            print(
                f"  paper, {row['table']}: about {row['params']:,} params and {row['flops']:.2g} FLOPs a block; "
                f"here {block:,} and {block * summary['first_outputs']:,}"
            )
        else:
            print(
                f"  paper, {row['table']}: #Params {row['params'] / 1e6:.3g} M   FLOPs {row['flops'] / 1e8:.3g} x 10^8"
            )
    head = ("block", "channels", "K", "params", "complementary condition", "Q / bound", "non-sparsity")
    print_columns([head, *map(_cells, summary["blocks"])], indent="  ")
    print(
        f"  {schedule['epochs']:g} epochs = {schedule['max_iter']:,} iterations of {schedule['batch_size']}, steps at "
        f"{', '.join(f'{s:,}' for s in schedule['stepvalue'])}; "
        f"a test is {schedule['test_iter']} x {schedule['test_batch_size']}"
    )
    tested = schedule["test_iter"] * schedule["test_batch_size"]
    if max(schedule["test_batch_size"], batch_of_test(tested, None)) < min(LEAST_OF_TEST, tested):
        print(
            f"  tests will be slow: no batch from {LEAST_OF_TEST} to {MOST_OF_TEST} divides the {tested:,} test images"
        )


def _cells(row: dict) -> tuple[str, ...]:
    first, last = row["first"], row["last"]
    name = first if first == last else f"{first} .. {last.rpartition('_')[2]}"
    widths = " -> ".join(map(str, dict.fromkeys(row["widths"])))
    return (
        name,
        widths,
        ", ".join(map(str, row["branches"])),
        f"{row['parameters']:,}",
        row["verdict"],
        f"{row['balance']:.3f}",
        f"{row['non_sparsity']:.4f}",
    )


def print_columns(rows, indent: str = ""):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print((indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip())
