"""Converts a net, and its weights, between our fused layers and plain Caffe layers with ChannelPermutation.

Works on any net, both ways; blobs stay bit for bit. Layers that have no counterpart stay as they are.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.proto import pb, read_net, read_weights, to_text
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_stock import to_stock

CONVERSIONS = {"stock": to_stock, "fused": to_fused}


def convert(net: "pb.NetParameter", engine: str, weights: "pb.NetParameter | None" = None) -> "pb.NetParameter":
    """The net in the layers of `engine`; with `weights` given, its layers have their blobs.

    Raises Invalid if layers of the weights are not in the net, or blobs do not fit a layer that is rewritten.
    """
    with_blobs = pb.NetParameter()
    with_blobs.CopyFrom(net)
    if weights is not None:
        blobs = {layer.name: layer.blobs for layer in weights.layer if layer.blobs}
        strangers = blobs.keys() - {layer.name for layer in net.layer}
        if strangers:
            names = ", ".join(repr(name) for name in sorted(strangers)[:3])
            raise Invalid(f"the weights are of another net: this one has no layer {names}")
        for layer in with_blobs.layer:
            layer.ClearField("blobs")
            if layer.type != "Input":
                layer.blobs.extend(blobs.get(layer.name, []))
    return CONVERSIONS[engine](with_blobs)


def without_blobs(net: "pb.NetParameter") -> "pb.NetParameter":
    result = pb.NetParameter()
    result.CopyFrom(net)
    for layer in result.layer:
        layer.ClearField("blobs")
    return result


@command
def main(argv=None):
    parser = Parser(prog="convert_engine", description=__doc__.split("\n")[0])
    parser.add_argument("net", type=Path, help="prototxt of a net")
    parser.add_argument("--to", required=True, choices=CONVERSIONS, help="our layers, or plain Caffe's")
    parser.add_argument("--out", type=Path, required=True, metavar="NET", help="prototxt to write")
    parser.add_argument("--weights", type=Path, metavar="MODEL", help=".caffemodel of the net")
    parser.add_argument("--weights-out", type=Path, metavar="MODEL", help=".caffemodel to write")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    args = parser.parse_args(argv)
    if (args.weights is None) != (args.weights_out is None):
        raise Invalid("--weights and --weights-out go together")
    outputs = [path for path in (args.out, args.weights_out) if path]
    taken = [path for path in outputs if path.exists()]
    if taken and not args.force:
        raise Invalid(f"{taken[0]} is there already: --force replaces it")
    net = read_net(args.net)
    converted = convert(net, args.to, read_weights(args.weights) if args.weights else None)
    contents = [to_text(without_blobs(converted)).encode(), converted.SerializeToString()]
    try:
        for path, content in zip(outputs, contents, strict=False):
            path.write_bytes(content)
    except OSError as error:
        raise Invalid(f"cannot write {error.filename}: {error.strerror}") from None
    print(f"{args.net}: {len(net.layer)} layers, {args.to}: {len(converted.layer)} in {', '.join(map(str, outputs))}")


if __name__ == "__main__":
    raise SystemExit(main())
