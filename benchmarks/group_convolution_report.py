"""Tables and JSON of bench_group_convolution.py."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.bench_report import commands, described, merged
from prototxt_gen.files import write_files


@dataclass
class Row:
    """Milliseconds are [forward, backward]; times: what the others take, in multiples of ours, both passes together."""

    name: str
    ours: list[float]
    stock: list[float]
    torch: dict[str, list[float]]
    copy: float
    gflops: float  # multiply-adds x 2 x (forward + both gradients) per second of both passes
    peak: float  # GFLOP/s of the matrix product
    limit: float  # ms: of each pass the longer of its multiply-adds at peak and its bytes at the copy's speed
    gbytes: float  # input and output once forward; input, output gradient, input gradient backward: per second
    forward_copies: float
    times_stock: float
    times_torch: float | None
    command: str


@dataclass
class PermutationRow:
    """Milliseconds are [forward, backward]; of_copy_speed: the copy's time over them."""

    name: str
    ours: list[float]
    copy: float
    of_copy_speed: list[float]
    command: str


def permutation_markdown(rows: list[PermutationRow]) -> str:
    lines = ["| ChannelPermutation | ms, fwd / bwd | copy ms | of copy speed, fwd / bwd |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.ours[0]:.3f} / {row.ours[1]:.3f} | {row.copy:.3f} "
            f"| {row.of_copy_speed[0]:.2f} / {row.of_copy_speed[1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def markdown(rows: list[Row], of: dict | None = None) -> str:
    lines = []
    if of:
        lines += [f"{described(of)}, float32; {commands(row.command for row in rows)}.", ""]
    lines += [
        "| block | ours ms, fwd / bwd | GFLOP/s | GB/s | copy ms | fwd in copies | limit ms | of it "
        "| stock ms | x ours (at the limit) | PyTorch ms | x ours (at the limit) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        best = min(row.torch.items(), key=lambda item: sum(item[1]), default=None)
        at_limit = sum(row.ours) / row.limit
        torch = " | "
        if best:
            torch = f"{best[1][0]:.2f} / {best[1][1]:.2f} ({best[0]}) "
            torch += f"| {row.times_torch:.1f} ({row.times_torch * at_limit:.1f})"
        lines.append(
            f"| {row.name} | {row.ours[0]:.2f} / {row.ours[1]:.2f} | {row.gflops:.0f} | {row.gbytes:.0f} "
            f"| {row.copy:.2f} | {row.forward_copies:.2f} | {row.limit:.2f} | {row.limit / sum(row.ours):.0%} "
            f"| {row.stock[0]:.1f} / {row.stock[1]:.1f} "
            f"| {row.times_stock:.1f} ({row.times_stock * at_limit:.1f}) | {torch} |"
        )
    return "\n".join(lines) + "\n"


def write_results(rows: list[Row], permutations: list[PermutationRow], of: dict, folder: Path):
    """group_convolution.json and .md: adds to what the same code on the same machine has written for other blocks."""
    path = folder / "group_convolution.json"
    record = {"machine": of}
    for name, new in (("rows", rows), ("permutations", permutations)):
        record[name] = merged(path, {"machine": of}, name, [asdict(row) for row in new], lambda row: row["name"])
    text = markdown([Row(**row) for row in record["rows"]], of)
    if record["permutations"]:
        text += "\n" + permutation_markdown([PermutationRow(**row) for row in record["permutations"]])
    write_files({path: (json.dumps(record, indent=1) + "\n").encode(), path.with_suffix(".md"): text.encode()})
