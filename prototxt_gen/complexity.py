"""Counts parameters and multiply-adds of any Caffe net from its prototxt alone.

The paper's convention (#Params, FLOPs): weights of the convolutions, and their multiply-adds for one image; not
counted are biases, batch norm, and the classifier. The full count has all blobs, and the multiply-adds of every layer
with blobs (one per element for a scale or a normalisation); learned are those that are no running statistics.
"""

import argparse
import json
import math
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.command_line import Invalid, Parser, command, unknown
from prototxt_gen.input_shapes import data_shapes, net_inputs
from prototxt_gen.layer_shapes import EFFECTS, Effect, Shape
from prototxt_gen.proto import pb, read_net


@dataclass(frozen=True)
class LayerCount:
    """One layer. values: numbers in its blobs; learned: those of them that training changes by gradients.

    Blobs that a layer before shares count there alone; multiply-adds count wherever they are done.
    """

    name: str
    type: str
    tops: list[Shape]
    blobs: list[Shape]
    values: int
    learned: int
    multiply_adds: int
    convolution_weights: int
    convolution_multiply_adds: int


@dataclass(frozen=True)
class Complexity:
    layers: list[LayerCount]

    def total(self, field: str) -> int:
        return sum(getattr(layer, field) for layer in self.layers)

    @property
    def params(self) -> int:
        """#Params as the paper counts them."""
        return self.total("convolution_weights")

    @property
    def flops(self) -> int:
        """FLOPs as the paper counts them: multiply-adds of one image."""
        return self.total("convolution_multiply_adds")

    def totals(self) -> dict[str, int]:
        return {
            "params": self.params,
            "flops": self.flops,
            **{name: self.total(name) for name in ("values", "learned", "multiply_adds")},
        }


def count_net(net: "pb.NetParameter", phase: str = "TEST", image: Shape | None = None) -> Complexity:
    """Counts the layers of a net that are in `phase`. image: C x H x W of data layers that do not tell it.

    Raises Invalid, naming the layer, for an unknown type, an unknown bottom, or shapes that do not fit.
    """
    shapes, shared, layers = net_inputs(net), set(), []
    for layer in net.layer:
        if not included(layer, phase):
            continue
        effect = _effect(layer, shapes, image)
        if len(effect.tops) < len(layer.top):
            raise Invalid(f"layer '{layer.name}' ({layer.type}) has {len(layer.top)} tops, expected {len(effect.tops)}")
        shapes.update(zip(layer.top, effect.tops, strict=False))
        layers.append(_count(layer, effect, shared))
    return Complexity(layers)


def known_counts(net: "pb.NetParameter") -> dict[str, LayerCount]:
    """By names, of the layers in either phase, but for those of a phase whose shapes the prototxt does not tell."""
    counts = {}
    for phase in ("TRAIN", "TEST"):
        with suppress(Invalid):
            counts.update((layer.name, layer) for layer in count_net(net, phase).layers)
    return counts


def included(layer, phase: str) -> bool:
    """Caffe's NetStateRule, for a net of level 0 without stages."""

    def meets(rule):
        return not (
            (rule.HasField("phase") and rule.phase != pb.Phase.Value(phase))
            or rule.min_level > 0
            or (rule.HasField("max_level") and rule.max_level < 0)
            or rule.stage
        )

    if layer.include:
        return any(meets(rule) for rule in layer.include)
    return not any(meets(rule) for rule in layer.exclude)


def _effect(layer, shapes, image) -> Effect:
    tops = data_shapes(layer, image)
    if tops is not None:  # AugmentedData keeps its place in the data in a blob
        return Effect(tops, [(2,)] if layer.type == "AugmentedData" else [], 1)
    if layer.type not in EFFECTS:
        raise unknown(f"type of layer '{layer.name}'", layer.type, sorted(EFFECTS))
    for bottom in layer.bottom:
        if bottom not in shapes:
            raise Invalid(f"layer '{layer.name}' reads blob '{bottom}', which no layer before it writes")
    bottoms = [shapes[bottom] for bottom in layer.bottom]
    try:
        return EFFECTS[layer.type](layer, bottoms)
    except (IndexError, ZeroDivisionError):
        raise Invalid(f"layer '{layer.name}' ({layer.type}) does not fit bottoms of shape {bottoms}") from None


def _count(layer, effect: Effect, shared: set[str]) -> LayerCount:
    own = []  # blobs that no layer before shares
    for i, blob in enumerate(effect.blobs):
        name = layer.param[i].name if i < len(layer.param) else ""
        if name not in shared:
            own.append((blob, i >= effect.statistics))
        if name:
            shared.add(name)
    weights = [math.prod(blob) for blob, _ in own if effect.convolution and len(blob) > 1]
    return LayerCount(
        layer.name,
        layer.type,
        effect.tops,
        effect.blobs,
        sum(math.prod(blob) for blob, _ in own),
        sum(math.prod(blob) for blob, learned in own if learned),
        effect.multiply_adds,
        sum(weights),
        effect.multiply_adds if effect.convolution else 0,
    )


def print_table(counts: Complexity):
    rows = [
        (c.name, c.type, "x".join(map(str, c.tops[0][1:])) if c.tops else "", f"{c.learned:,}", f"{c.multiply_adds:,}")
        for c in counts.layers
    ]
    head = ("layer", "type", "top", "learned", "multiply-adds")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print(
            "  ".join(
                cell.rjust(w) if i > 2 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
    print(
        f"\nAs the paper counts:  #Params {counts.params:,} ({counts.params / 1e6:.3f} M)   "
        f"FLOPs {counts.flops:,} ({counts.flops / 1e8:.3f} x 10^8)"
    )
    print(
        f"All:  {counts.total('learned'):,} learned parameters, {counts.total('values'):,} values in blobs, "
        f"{counts.total('multiply_adds'):,} multiply-adds"
    )


def add_input_option(parser: Parser):
    parser.add_argument(
        "--input", type=image_shape, metavar="C,H,W", help="image shape, where the data layer does not tell it"
    )


def image_shape(text: str) -> Shape:
    try:
        shape = tuple(int(n) for n in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not C,H,W, such as 3,32,32")
    return shape


@command
def main(argv=None):
    parser = Parser(prog="complexity", description=__doc__.split("\n")[0])
    parser.add_argument("net", type=Path, help="prototxt of a net")
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), default="TEST", help="which layers of a train_val (%(default)s)"
    )
    add_input_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    counts = count_net(read_net(args.net), args.phase, args.input)
    if args.json:
        print(json.dumps({**counts.totals(), "layers": [asdict(layer) for layer in counts.layers]}, indent=2))
    else:
        print_table(counts)


if __name__ == "__main__":
    raise SystemExit(main())
