"""Pictures of a block: its connections (figure 1 of the paper) and the composed kernel. Needs matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prototxt_gen.command_line import Invalid
from prototxt_gen.files import write_files
from prototxt_gen.group_convolution import GroupConvolution
from prototxt_gen.permutations import block_permutations, path_counts

DRAWN_CHANNELS = 256  # more are too fine to see


def _pyplot():
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise Invalid("pictures need matplotlib: pip install matplotlib") from None
    return pyplot


def draw_block(convolutions: Sequence[GroupConvolution], path: Path, highlight: int = 0):
    """Writes a picture of a block, and beside it the number of paths from each input to each output channel.

    Convolutions are solid lines, permutations dashed, the paths from input channel `highlight` bold.
    """
    widest = max(max(c.inputs, c.outputs) for c in convolutions)
    if widest > DRAWN_CHANNELS:
        raise Invalid(f"a picture of {widest} channels shows nothing: {DRAWN_CHANNELS} are the most")
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(4 + 2.2 * len(convolutions), 5), width_ratios=(len(convolutions) + 1, 2)
    )
    _draw_connections(left, convolutions, highlight)
    _draw_kernel(right, convolutions)
    figure.tight_layout()
    save(figure, path, dpi=100)


def save(figure, path: Path, dpi: int):
    """Writes a picture of the kind that the path's suffix names, and closes the figure. Raises Invalid."""
    kinds = figure.canvas.get_supported_filetypes()
    if (kind := path.suffix[1:].lower()) not in kinds:
        raise Invalid(f"cannot write {path}: the suffix of a picture is one of {', '.join(kinds)}")
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=dpi)
    _pyplot().close(figure)
    write_files({path: picture.getvalue()})


def _draw_connections(axes, convolutions, highlight: int):
    perms = block_permutations(convolutions)
    reached = np.zeros(convolutions[0].inputs, bool)
    reached[highlight] = True
    x, names = 0.0, []
    for number, (convolution, perm) in enumerate(zip(convolutions, perms, strict=False), 1):
        if not np.array_equal(perm, np.arange(len(perm))):
            x, reached = _draw_permutation(axes, x, perm, reached)
            names.append((x - 0.5, f"$P_{number - 1}$"))
        names.append(
            (x + 0.5, f"$W_{number}$ ({convolution.kernel}x{convolution.kernel}, K={convolution.branch_inputs})")
        )
        x, reached = _draw_convolution(axes, x, convolution, reached)
    x, reached = _draw_permutation(axes, x, perms[-1], reached)
    names.append((x - 0.5, f"$P_{len(convolutions)}$"))
    for place, name in names:
        axes.text(place, 1.03, name, ha="center", fontsize=8)
    axes.set_axis_off()


def _places(channels: int) -> np.ndarray:
    """Heights of the channels, the first on top."""
    return 1 - (np.arange(channels) + 0.5) / channels


def _draw_lines(axes, x, starts, ends, bold, **style):
    for start, end, strong in zip(starts, ends, bold, strict=True):
        axes.plot([x, x + 1], [start, end], color="black" if strong else "0.75", lw=1.6 if strong else 0.5,
                  zorder=2 if strong else 1, **style)  # fmt: skip


def _draw_channels(axes, x, places, reached):
    axes.scatter(np.full(len(places), x), places, s=min(30, 1200 / len(places)), zorder=3,
                 c=["0.45" if r else "white" for r in reached], edgecolors="black", linewidths=0.6)  # fmt: skip


def _draw_permutation(axes, x, perm, reached):
    places, after = _places(len(perm)), reached[perm]
    _draw_lines(axes, x, places[perm], places, after, ls="--")
    _draw_channels(axes, x + 1, places, after)
    return x + 1, after


def _draw_convolution(axes, x, convolution, reached):
    inputs, outputs = _places(convolution.inputs), _places(convolution.outputs)
    branch = np.arange(convolution.inputs) // convolution.branch_inputs
    after = np.zeros(convolution.outputs, bool)
    for channel in range(convolution.inputs):
        targets = branch[channel] * convolution.branch_outputs + np.arange(convolution.branch_outputs)
        after[targets] |= reached[channel]
        _draw_lines(axes, x, [inputs[channel]] * len(targets), outputs[targets], [reached[channel]] * len(targets))
    _draw_channels(axes, x, inputs, reached)
    _draw_channels(axes, x + 1, outputs, after)
    return x + 1, after


def _draw_kernel(axes, convolutions):
    paths = path_counts(convolutions)
    most = int(paths.max())
    image = axes.imshow(paths.astype(float), cmap="Greys", vmin=0, vmax=max(1, most), interpolation="nearest")
    axes.set_xlabel("input channel")
    axes.set_ylabel("output channel")
    axes.set_title(f"paths: {paths.min()} to {most}, {(paths > 0).mean():.0%} dense", fontsize=9)
    axes.figure.colorbar(image, ax=axes, shrink=0.7, ticks=sorted({0, (most + 1) // 2, most}))
