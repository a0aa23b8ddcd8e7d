"""Where the benchmarks' results come from, and the tables and charts of bench_net.py and bench_inference.py."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from experiments import machine
from prototxt_gen.figures import save

ROOT = Path(__file__).resolve().parents[1]
MODES = ("eager", "channels_last", "compiled", "channels_last compiled")  # of PyTorch
CRASHED = "crashed"  # in the place of ms


def commit() -> str:
    return machine.code("benchmarks", ":!benchmarks/results")


def origin(threads: int) -> dict:
    return machine.hardware(threads, None) | machine.versions() | {"commit": commit()}


def this_command() -> str:
    """As given in the root, wherever that is."""
    return relative(shlex.join(["python", *sys.argv]))


def relative(text: str) -> str:
    return text.replace(f"{ROOT}/", "")


def reason(text: str) -> str:
    """The line of a program's output that says why it failed: glog's, Python's, or else the last."""
    lines = text.strip().splitlines()
    told = [line for line in lines if re.match(r"F\d|[\w.]*(Error|Exception)\b", line)]
    return (told or lines or [""])[-1]


def described(of: dict) -> str:
    """An origin in a line."""
    return f"{of['cpu']}, {of['instructions']}, {of['threads']} threads, commit {machine.short(of['commit'])}"


def commands(given: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(f"`{command}`" for command in given))


def merged(path: Path, head: dict, name: str, new: list[dict], key: Callable[[dict], object]) -> list[dict]:
    """The list `name` of the JSON at `path` with `new` in it, in the place of entries of the same key.

    `new` alone if the JSON does not have all of `head`: other code, or another machine.
    """
    before = json.loads(path.read_text()) if path.exists() else {}
    if any(before.get(field) != value for field, value in head.items()):
        return new
    keys = {key(one) for one in new}
    return [old for old in before[name] if key(old) not in keys] + new


def markdown(results: list[dict], batch: int, of: dict | None = None) -> str:
    lines = []
    if of:
        source = f"{described(of)}; {commands(result['command'] for result in results)}."
        lines += [f"# A training step, batch {batch}", "", source, ""]
    lines += ["| net | | ms / step | images / s | times ours | peak MB |", "|---|---|---|---|---|---|"]
    for result in results:
        for title, ms in result["ms"].items():
            if ms == CRASHED:
                lines.append(f"| {result['net']} | {title} | {CRASHED} | | | |")
                continue
            peak = result["peak_mb"].get(title)
            lines.append(
                f"| {result['net']} | {title} | {ms:.1f} | {1000 * batch / ms:.0f} | {ms / result['ms']['ours']:.1f} "
                f"| {f'{peak:.0f}' if peak else ''} |"
            )
    lines += ["", *limits_table(results)]
    for result in results:
        lines += ["", f"## Where the time of {result['net']} goes: forward / backward ms", "", *layer_table(result)]
    return "\n".join(lines) + "\n"


def limits_table(results: list[dict]) -> list[str]:
    """The step beside what the machine's memory and multiply-adds allow, as measured in the same run."""
    rows = [
        "Ours beside the machine: the bytes of a step in which every layer goes over its blobs once, at the speed of a "
        "copy; the multiply-adds of its convolutions, forward and for both gradients, at that of a matrix product "
        "(OpenBLAS); and the limit, where each layer's pass takes the longer of the two. Winograd's algorithm, with a "
        "quarter of the multiply-adds, can go below it, and so can stores past the caches, which read no line first.",
        "",
        "| net | GB / step | copy GB/s | ms at copy speed | GFLOP / step | product GFLOP/s | limit, ms | ms / step "
        "| of the limit | stock Caffe, x the limit | PyTorch, x the limit |",
        "|" + "---|" * 11,
    ]
    for result in results:
        limits, limit = result["limits"], result["limits"]["limit_ms"]
        at_copy_speed = 1000 * limits["gigabytes"] / limits["copy_gb_s"]
        ms = {title: ms for title, ms in result["ms"].items() if ms != CRASHED}
        stock = f"{ms['stock Caffe'] / limit:.1f}" if "stock Caffe" in ms else ""
        torch = [ms[title] for title in ms if title.startswith("PyTorch")]
        rows.append(
            f"| {result['net']} | {limits['gigabytes']:.2f} | {limits['copy_gb_s']:.1f} | {at_copy_speed:.0f} "
            f"| {limits['gflop']:.1f} | {limits['product_gflop_s']:.0f} | {limit:.0f} | {ms['ours']:.0f} "
            f"| {limit / ms['ours']:.0%} | {stock} | {f'{min(torch) / limit:.1f}' if torch else ''} |"
        )
    return rows


def layer_table(result: dict) -> list[str]:
    """layer_ms: title -> layer type -> list of ms, such as [forward, backward]."""
    titles = list(result["layer_ms"])
    types = sorted(
        {kind for times in result["layer_ms"].values() for kind in times},
        key=lambda kind: -max(sum(times.get(kind, [0])) for times in result["layer_ms"].values()),
    )
    rows = ["| layer type | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    for kind in types:
        cells = [result["layer_ms"][title].get(kind, []) for title in titles]
        rows.append(f"| {kind} | " + " | ".join(" / ".join(f"{ms:.2f}" for ms in cell) for cell in cells) + " |")
    return rows


def inference_markdown(results: list[dict], of: dict | None = None) -> str:
    """results: of each net and batch size."""
    lines = []
    if of:
        lines += [
            "# Inference, batch norm folded",
            "",
            f"{described(of)}; {commands(result['command'] for result in results)}. "
            "Each runtime through its Python interface: set the input, run, read the output.",
            "",
        ]
    lines += ["| net | batch | | ms | images / s | times ours |", "|---|---|---|---|---|---|"]
    for result in results:
        for title, ms in result["ms"].items():
            batch = result["batch"]
            numbers = (
                (f"{ms:.2f}", f"{1000 * batch / ms:.0f}", f"{ms / result['ms']['ours']:.2f}")
                if ms != CRASHED
                else (CRASHED, "", "")
            )
            lines.append(f"| {result['net']} | {batch} | {title} | {' | '.join(numbers)} |")
    for result in results:
        lines += [
            "",
            f"## Where the time of {result['net']} goes, batch {result['batch']}: ms",
            "",
            *layer_table(result),
        ]
    return "\n".join(lines) + "\n"


def write_chart(results: list[dict], path: Path, unit: str = "ms per training step"):
    """Bars of ms, one group per net, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = list(dict.fromkeys(title for result in results for title in result["ms"]))
    figure, axes = plt.subplots(figsize=(2 + 1.6 * len(results), 4), layout="constrained")
    width = 0.8 / len(titles)
    for k, title in enumerate(titles):
        positions = [i + (k - (len(titles) - 1) / 2) * width for i in range(len(results))]
        times = [result["ms"].get(title, CRASHED) for result in results]
        bars = axes.bar(positions, [float("nan") if ms == CRASHED else ms for ms in times], width, label=title)
        axes.bar_label(bars, fmt=lambda ms: f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}", fontsize=8)
    axes.set_xticks(range(len(results)), [result["net"] for result in results])
    axes.set_ylabel(unit)
    axes.set_yscale("log")
    axes.legend()
    save(figure, path, dpi=150)
