#!/usr/bin/env python3
"""The learning curve of a training run: loss, train accuracy and test accuracy, from the log of `caffe train`."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.caffe_log import CaffeLog, read_log  # noqa: E402
from prototxt_gen.command_line import Invalid, Parser, command  # noqa: E402
from prototxt_gen.figures import save  # noqa: E402


def draw(log: CaffeLog, title: str, path: Path) -> None:
    """Writes the picture; its kind is that of the path's suffix (.png, .svg, .pdf)."""
    figure, left = plt.subplots(figsize=(8, 4.5), layout="constrained")
    right = left.twinx()
    if log.smoothed_loss:
        left.plot(*zip(*log.smoothed_loss, strict=True), color="tab:gray", label="training loss")
    left.set_xlabel("iteration")
    left.set_ylabel("loss")
    left.set_ylim(bottom=0)
    for values, label, style in ((log.train, "train accuracy", ":"), (log.test, "test accuracy", "o-")):
        for name, points in values.items():
            if "accuracy" in name.lower():
                iterations, accuracies = zip(*points, strict=True)
                percent = [100 * a for a in accuracies]
                right.plot(iterations, percent, style, markersize=4, label=f"{label} (last: {percent[-1]:.2f} %)")
    right.set_ylabel("accuracy (%)")
    right.set_ylim(top=100)
    left.set_title(title)
    handles = [line for axes in (left, right) for line in axes.get_lines()]
    right.legend(handles=handles, loc="center right")
    save(figure, path, dpi=150)


@command
def main(argv=None):
    parser = Parser(prog="learning_curve", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="the picture (default: beside the log, .png)")
    args = parser.parse_args(argv)
    log = read_log(args.log)
    if not log.smoothed_loss and not log.test:
        raise Invalid(f"{args.log}: no iteration of a training in this log")
    picture = args.output or args.log.with_suffix(".png")
    if picture.resolve() == args.log.resolve():
        raise Invalid(f"the picture would take the place of the log, {args.log}: give another one by --output")
    draw(log, args.log.stem, picture)


if __name__ == "__main__":
    raise SystemExit(main())
