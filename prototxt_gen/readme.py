"""The readme.md of an experiment's folder."""

import shlex


def readme(summary: dict) -> str:
    schedule = summary["schedule"]
    paper = "".join(
        f"| paper, {row['table']} ({row['counts']}) | {row['params']:,} | {row['flops']:,} |\n"
        for row in summary["paper"]
    )
    return f"""# {summary["title"]}, depth {summary["depth"]}, on {summary["dataset"]}

Written by `prototxt_gen/make_net.py`; change its options rather than these files.

| | #Params | FLOPs |
|---|---|---|
| this network | {summary["params"]:,} | {summary["flops"]:,} |
{paper}
As the paper counts: weights and multiply-adds of the convolutions. All learned parameters: {summary["learned"]:,}.

```
caffe train -solver {shlex.quote(summary["solver"])}
```

{schedule["epochs"]:g} epochs of batch {schedule["batch_size"]}: {schedule["max_iter"]:,} iterations, learning rate 0.1,
times 0.1 at {", ".join(f"{step:,}" for step in schedule["stepvalue"])}. Each test sees the whole test set:
{schedule["test_iter"]} batches of {schedule["test_batch_size"]}.

`deploy.prototxt` takes normalised BGR images, (x - mean) / std.
"""
