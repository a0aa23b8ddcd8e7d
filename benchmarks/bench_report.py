"""The table and the chart of bench_net.py."""

import subprocess
from pathlib import Path

MODES = ("eager", "channels_last", "compiled", "channels_last compiled")  # of PyTorch


def commit() -> str:
    """Of this checkout; empty where there is no git, as on a machine that got only the files."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, cwd=Path(__file__).parent, text=True, capture_output=True).stdout.strip()
    except OSError:
        return ""


def markdown(results: list[dict], batch: int, machine: dict | None = None) -> str:
    lines = []
    if machine:
        lines += [
            f"# A training step, batch {batch}",
            "",
            f"{machine['cpu']}, {machine['threads']} threads, commit {machine['commit']}; `make bench-net`.",
            "",
        ]
    lines += ["| net | | ms / step | images / s | times ours | peak MB |", "|---|---|---|---|---|---|"]
    for result in results:
        for title, ms in result["ms"].items():
            peak = result["peak_mb"].get(title)
            lines.append(
                f"| {result['net']} | {title} | {ms:.1f} | {1000 * batch / ms:.0f} | {ms / result['ms']['ours']:.1f} "
                f"| {f'{peak:.0f}' if peak else ''} |"
            )
    for result in results:
        lines += ["", f"## Where the time of {result['net']} goes: forward / backward ms", "", *layer_table(result)]
    return "\n".join(lines) + "\n"


def layer_table(result: dict) -> list[str]:
    titles = list(result["layer_ms"])
    types = sorted(
        {kind for times in result["layer_ms"].values() for kind in times},
        key=lambda kind: -max(sum(times.get(kind, [0, 0])) for times in result["layer_ms"].values()),
    )
    rows = ["| layer type | " + " | ".join(titles) + " |", "|---|" + "---|" * len(titles)]
    for kind in types:
        cells = [result["layer_ms"][title].get(kind) for title in titles]
        rows.append(f"| {kind} | " + " | ".join("" if c is None else f"{c[0]:.2f} / {c[1]:.2f}" for c in cells) + " |")
    return rows


def write_chart(results: list[dict], path: Path):
    """Bars of ms per step, one group per net, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    titles = list(results[0]["ms"])
    figure, axes = plt.subplots(figsize=(2 + 1.6 * len(results), 4), layout="constrained")
    width = 0.8 / len(titles)
    for k, title in enumerate(titles):
        positions = [i + (k - (len(titles) - 1) / 2) * width for i in range(len(results))]
        bars = axes.bar(positions, [result["ms"][title] for result in results], width, label=title)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(results)), [result["net"] for result in results])
    axes.set_ylabel("ms per training step")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(path, dpi=150)
