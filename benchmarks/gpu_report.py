"""The tables of bench_gpu.py's record."""

from experiments import machine


def markdown(record: dict) -> str:
    """record: machine, and results by "blocks / CONTESTANT" and "steps / NET_BATCH / CONTESTANT"."""
    of = record["machine"]
    device = ", ".join(str(of[name]) for name in ("gpu", "memory", "driver") if name in of)
    commit = machine.short(of["commit"])
    lines = ["# On a GPU", "", f"{device}; float32 without TF32, commit {commit}; `make bench-gpu`.", ""]
    results = record["results"]
    lines += step_table({tuple(k.split(" / ")[1:]): v for k, v in results.items() if k.startswith("steps / ")})
    lines += block_table({k.split(" / ")[1]: v for k, v in results.items() if k.startswith("blocks / ")})
    errors = [f"- {name}: {result['error']}" for name, result in results.items() if "error" in result]
    return "\n".join(lines + (["", "## What did not run", "", *errors] if errors else [])) + "\n"


def step_table(steps: dict) -> list[str]:
    """One row per net, batch and contestant, with its time in multiples of ours; a graph's also of ours with graphs."""
    lines = [
        "## A training step",
        "",
        "Ours with data layer, unless it says otherwise; PyTorch's batch is always the same.",
        "",
        "| net | batch | | ms / step | images / s | times ours |",
        "|---|---|---|---|---|---|",
    ]
    for (net, title), result in steps.items():
        if "error" in result:
            continue
        name, _, batch = net.rpartition("_")
        ours = steps.get((net, "ours"), {}).get("ms")
        times = f"{result['ms'] / ours:.2f}" if ours else ""
        lines.append(
            f"| {name} | {batch} | {title} | {result['ms']:.3f} | {1000 * int(batch) / result['ms']:.0f} | {times} |"
        )
    return lines


def block_table(blocks: dict) -> list[str]:
    """One row per block. A copy moves the mean of input and output, so that forward at its speed is 1.0 copies."""
    ours = blocks.get("ours", [])
    if not ours or "error" in ours:
        return []
    others = {
        title: {row["net"]: row for row in rows}
        for title, rows in blocks.items()
        if title != "ours" and "error" not in rows
    }
    lines = [
        "",
        "## Blocks: forward / backward ms",
        "",
        "Copy: device to device, of as many bytes as the mean of input and output. What fits into the L2 cache stays "
        "there, for all of them.",
        "",
        "| block | copy | GB/s | ours | forward in copies | " + " | ".join(others) + " |",
        "|---|---|---|---|---|" + "---|" * len(others),
    ]
    for row in ours:
        cells = [both(rows[row["net"]]) if row["net"] in rows else "" for rows in others.values()]
        lines.append(
            f"| {row['net']} | {row['copy']:.4f} | {1e-6 * row['bytes'] / row['copy']:.0f} | {both(row)} "
            f"| {row['forward'] / row['copy']:.2f} | " + " | ".join(cells) + " |"
        )
    return lines


def both(row: dict) -> str:
    return f"{row['forward']:.4f} / {row['backward']:.4f}"
