"""Figures 2, 3 and 4: accuracies as far as trained, and what theory alone says of the blocks."""

from collections.abc import Callable

import numpy as np

from experiments.report_pictures import COLOURS, Picture, draw
from experiments.report_results import Result, size

KINDS = {"red": "complementary", "blue": "dense", "green": "not dense"}


def figure2(results: dict[str, Result]) -> list[Picture]:
    """A picture for each L: a bar for each K, with blocks of one size."""
    found = of(results, "figure2")
    return [_sweep(layers, [r for r in found if r.run.L == layers]) for layers in dict.fromkeys(r.run.L for r in found)]


def of(results: dict[str, Result], table: str) -> list[Result]:
    return [result for result in results.values() if result.run.table == table]


def kind(result: Result) -> str:
    """The colour of a bar: red nearest to the complementary condition, blue for another dense kernel, else green."""
    return "red" if result.run.nearest else "blue" if size(result.run).block.density == 1 else "green"


def _sweep(layers: str, found: list[Result]) -> Picture:
    def paint(picture, axes):
        place = np.arange(len(found))
        for x, result in zip(place, found, strict=True):
            _bar(picture, axes, x, result)
        axes.set_xticks(place, [f"{r.run.K}\n{r.run.width}" for r in found])
        axes.set_xlabel("K, and below it the width C")
        axes.set_xlim(-0.6, len(found) - 0.4)
        axes.grid(axis="x", visible=False)
        for label, result in zip(axes.get_xticklabels(), found, strict=True):
            label.set_color(COLOURS[kind(result)])
        handles = [axes.bar([0], [0], color=COLOURS[colour]) for colour in KINDS]
        axes.legend(handles, KINDS.values(), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3,
                    handlelength=0.8, columnspacing=1)  # fmt: skip
        accuracy_axis(axes, found)

    return draw(Picture(f"figure2_l{layers}", f"L = {layers}", schedule_note(found)), paint)


def _bar(picture: Picture, axes, x: float, result: Result) -> None:
    if result.accuracy is None:
        axes.annotate("not trained", (x, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="center",
                      va="bottom", color=COLOURS["faint"], fontsize=9)  # fmt: skip
        return
    (bar,) = axes.bar([x], [result.accuracy], 0.72, color=COLOURS[kind(result)])
    picture.tip(bar, tip(result))
    error_bar(axes, x, result)
    axes.annotate(f"{result.accuracy:.1f}", (x, result.accuracy + (result.deviation or 0)), (0, 2), ha="center",
                  textcoords="offset points", fontsize=9)  # fmt: skip


def error_bar(axes, x: float, result: Result) -> None:
    if result.deviation is not None:
        axes.errorbar([x], [result.accuracy], [result.deviation], fmt="none", ecolor=COLOURS["ink"], capsize=2, lw=1)


def tip(result: Result) -> str:
    """What the page shows where the pointer rests on a point or bar."""
    deviation = f" ± {result.deviation:.2f}" if result.deviation is not None else ""
    return f"{result.run.name}: {result.accuracy:.2f}{deviation} % ({result.schedule})"


def schedule_note(found: list[Result]) -> str:
    """How the results in a picture were trained; a warning where they cannot be compared."""
    schedules = list(dict.fromkeys(result.schedule for result in found if result.records))
    if not schedules:
        return "Not trained yet."
    missing = sum(not result.records for result in found)
    text = f"Trained for {' / '.join(schedules)}" + (f"; {missing} of {len(found)} not trained." if missing else ".")
    if len({result.epochs for result in found if result.records}) > 1:
        text += " Points of different schedules do not compare."
    return text


def accuracy_axis(axes, found: list[Result]) -> None:
    """Limits that show the differences: bars do not start at 0, as in the paper."""
    values = [(r.accuracy, r.deviation or 0) for r in found if r.records]
    if not values:
        axes.set_yticks([])
        axes.grid(visible=False)
        return
    low, high = min(a - d for a, d in values), max(a + d for a, d in values)
    margin = max(0.5, 0.25 * (high - low))
    axes.set_ylim(max(0, low - 2 * margin), min(100, high + margin))
    axes.set_ylabel("test accuracy (%)")


def figure3(results: dict[str, Result]) -> list[Picture]:
    """Accuracy, width and non-sparsity against L, for blocks of one size."""
    found = of(results, "figure3")
    layers = [int(result.run.L) for result in found]
    widths = [result.run.width for result in found]
    densities = [size(result.run).block.non_sparsity for result in found]
    best = max((r for r in found if r.records), key=lambda result: result.accuracy, default=None)
    marks = {"--": layers[int(np.argmax(widths))]} | ({"-": int(best.run.L)} if best else {})

    def panel(name: str, title: str, note: str, paint: Callable, *values) -> Picture:
        def paint_all(picture, axes):
            for style, x in marks.items():
                axes.axvline(x, color=COLOURS["faint"], ls=style, lw=1)
            paint(picture, axes, layers, *values)
            axes.set_xticks(layers)
            axes.set_xlim(min(layers) - 0.4, max(layers) + 0.4)
            axes.set_xlabel("L")

        return draw(Picture(f"figure3_{name}", title, note), paint_all)

    theory = "By the design of the blocks: no training needed."
    return [
        panel("accuracy", "Accuracy", schedule_note(found), _accuracies, found),
        panel("width", "Width", theory, _values, widths, "width C", "d"),
        panel("non_sparsity", "Non-sparsity", theory, _values, densities, "params / params of the dense kernel", ".3f"),
    ]


def _values(_, axes, places: list[int], values: list[float], label: str, form: str) -> None:
    axes.plot(places, values, "o-", color=COLOURS["blue"], markersize=4, lw=1.2)
    rising = values[0] < values[-1]  # the labels' side is off the line
    for x, y in zip(places, values, strict=True):
        axes.annotate(f"{y:{form}}", (x, y), (3, -11 if rising else 4), textcoords="offset points", fontsize=9)
    axes.set_ylabel(label)
    axes.margins(y=0.15)


def _accuracies(picture: Picture, axes, places: list[int], found: list[Result]) -> None:
    """Of those that were trained."""
    trained = [(x, result) for x, result in zip(places, found, strict=True) if result.records]
    axes.plot([x for x, _ in trained], [r.accuracy for _, r in trained], "-", color=COLOURS["red"], lw=1.2)
    for x, result in trained:
        (point,) = axes.plot([x], [result.accuracy], "o", color=COLOURS["red"], markersize=5)
        picture.tip(point, tip(result))
        error_bar(axes, x, result)
    accuracy_axis(axes, found)
    if not trained:
        axes.text(0.5, 0.5, "not trained yet", transform=axes.transAxes, ha="center", color=COLOURS["faint"])


def figure4(results: dict[str, Result]) -> list[Picture]:
    """IGC-V2* wider and deeper: accuracies, and what either costs."""
    found = of(results, "figure4")
    wider = [result for result in found if result.run.width != 64]
    deeper = [result for result in found if result.run.width == 64]

    def panel(name: str, title: str, part: list[Result], field: str, label: str) -> Picture:
        places = [getattr(result.run, field) for result in part]

        def paint(picture, axes):
            _accuracies(picture, axes, places, part)
            axes.set_xticks(places)
            axes.set_xlabel(label)

        return draw(Picture(f"figure4_{name}", title, schedule_note(part)), paint)

    return [
        panel("wider", "Wider (D = 20)", wider, "width", "width C"),
        panel("deeper", "Deeper (C = 64)", deeper, "depth", "depth D"),
        draw(
            Picture("figure4_cost", "What it costs", "Counted in the networks: no training needed."),
            lambda _, axes: _costs(axes, wider, deeper),
        ),
    ]


def _costs(axes, wider: list[Result], deeper: list[Result]) -> None:
    for part, colour, label, letter, field, place in (
        (wider, "red", "wider", "C", "width", (5, -10)),
        (deeper, "blue", "deeper", "D", "depth", (-24, 4)),
    ):
        sizes = [size(result.run) for result in part]
        points = [(s.params / 1e6, s.flops / 1e8) for s in sizes]
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[colour], markersize=4, lw=1.2, label=label)
        for result, point in zip(part, points, strict=True):
            axes.annotate(f"{letter}{getattr(result.run, field)}", point, place, textcoords="offset points",
                          fontsize=9, color=COLOURS[colour])  # fmt: skip
    axes.margins(0.12)
    axes.set_xlabel("#Params (×10⁶)")
    axes.set_ylabel("FLOPs (×10⁸)")
    axes.legend(loc="upper left")
