"""Learning curves of what was trained, and accuracy against size: the paper's numbers and ours in one picture."""

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from experiments.records import Record
from experiments.report_figures import tip
from experiments.report_pictures import COLOURS, Picture, draw
from experiments.report_results import Result, size
from experiments.report_tables import DATASETS, mean_and_deviation, network_title

LOOKS = {  # colour and marker
    "xception": ("orange", "s"),
    "igcv1": ("teal", "^"),
    "igcv2": ("blue", "o"),
    "igcv2-I": ("green", "v"),
    "igcv2-II": ("red", "D"),
    "igcv2star": ("purple", "P"),
}
SMOOTHED = 40  # points of a training curve, each the mean of its neighbours


def learning_curves(results: dict[str, Result]) -> list[Picture]:
    """A picture for each run that was trained itself: accuracies above, losses below, a line for each seed."""
    return [_learning_curve(r) for r in results.values() if r.records and not r.run.same_as]


def _learning_curve(result: Result) -> Picture:
    run = result.run
    note = f"{mean_and_deviation(result.accuracy, result.deviation)} % ({result.schedule})"

    def paint(_, axes):
        above, below = axes
        for record in result.records:
            above.plot(*_by_epoch(record, "train_accuracy"), color=COLOURS["faint"], lw=0.8)
            above.plot(*_by_epoch(record, "test_accuracy"), "o-", color=COLOURS["red"], markersize=2.5, lw=1)
            below.plot(*_by_epoch(record, "train_loss"), color=COLOURS["faint"], lw=0.8)
            below.plot(*_by_epoch(record, "test_loss"), color=COLOURS["red"], lw=1)
        above.set_ylabel("accuracy (%)")
        above.set_ylim(0, 100)
        below.set_ylabel("loss")
        below.set_ylim(bottom=0)
        below.set_xlabel("epoch")
        below.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        above.legend(above.get_lines()[:2], ("training (running mean)", "test"), loc="lower right", ncols=2)

    picture = Picture(f"curve_{run.name.replace('/', '_')}", run.name, note)
    return draw(picture, paint, png=False, nrows=2, sharex=True, height_ratios=(2, 1))


def _by_epoch(record: Record, curve: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values. Those of training, single batches, are averaged to SMOOTHED points."""
    points = np.array(record.curve[curve], float).reshape(-1, 2)
    if curve.startswith("train") and len(points) > SMOOTHED:
        points = np.array([part.mean(axis=0) for part in np.array_split(points, SMOOTHED)])
    return points[:, 0] * record.epochs / record.iterations, points[:, 1]


def scatter(results: dict[str, Result]) -> list[Picture]:
    """Accuracy against #Params and FLOPs for each data set."""
    measures = (("params", "#Params (×10⁶)", 1e6), ("flops", "FLOPs (×10⁸)", 1e8))
    return [
        _scatter(results, dataset, *measure)
        for measure in measures
        for dataset in ("cifar100", "cifar10", "tiny-imagenet")
    ]


def _scatter(results: dict[str, Result], dataset: str, measure: str, label: str, unit: float) -> Picture:
    found = [r for r in results.values() if r.run.dataset == dataset and not r.run.same_as]
    shown = [r for r in found if r.run.paper is not None or r.records]

    def paint(picture, axes):
        for result in shown:
            x = getattr(size(result.run), measure) / unit
            colour, marker = LOOKS[result.run.arch]
            style = {"marker": marker, "color": COLOURS[colour], "markersize": 6, "ls": "none"}
            if result.run.paper is not None:
                (point,) = axes.plot(x, result.run.paper, fillstyle="none", **style)
                printed = mean_and_deviation(result.run.paper, result.run.deviation)
                picture.tip(point, f"{result.run.name}: {printed} % (paper)")
            if result.records:
                (point,) = axes.plot(x, result.accuracy, **style)
                picture.tip(point, tip(result))
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_ylabel("test accuracy (%)")
        axes.margins(0.06, 0.08)
        _legend(axes, [arch for arch in LOOKS if any(r.run.arch == arch for r in shown)])

    title = f"{DATASETS[dataset]}, {label.partition(' ')[0]}"
    return draw(Picture(f"scatter_{dataset.replace('-', '_')}_{measure}", title), paint)


def _legend(axes, archs: list[str]) -> None:
    handles = []
    for arch in archs:
        colour, marker = LOOKS[arch]
        name = network_title(arch, 0).partition(" (")[0]
        handles += axes.plot([], [], marker, color=COLOURS[colour], label=name)
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, handletextpad=0.2, columnspacing=1
    )
