"""Converts a net, and its weights, between our fused layers and plain Caffe layers with ChannelPermutation.

Works on any net, both ways; blobs stay bit for bit. Layers that have no counterpart stay as they are.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.files import write_files
from prototxt_gen.proto import pb, read_net, read_weights
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import add_output_options, check_free, net_files, with_blobs

CONVERSIONS = {"stock": to_stock, "fused": to_fused}


def convert(net: "pb.NetParameter", engine: str, weights: "pb.NetParameter | None" = None) -> "pb.NetParameter":
    """The net in the layers of `engine`; with `weights` given, its layers have their blobs.

    Raises Invalid if layers of the weights are not in the net, or blobs do not fit a layer that is rewritten.
    """
    return CONVERSIONS[engine](net if weights is None else with_blobs(net, weights))


@command
def main(argv=None):
    parser = Parser(prog="convert_engine", description=__doc__.split("\n")[0])
    parser.add_argument("net", type=Path, help="prototxt of a net")
    parser.add_argument("--to", required=True, choices=CONVERSIONS, help="our layers, or plain Caffe's")
    add_output_options(parser)
    parser.add_argument("--weights", type=Path, metavar="MODEL", help=".caffemodel of the net")
    parser.add_argument("--weights-out", type=Path, metavar="MODEL", help=".caffemodel to write")
    args = parser.parse_args(argv)
    if (args.weights is None) != (args.weights_out is None):
        raise Invalid("--weights and --weights-out go together")
    outputs = [path for path in (args.out, args.weights_out) if path]
    check_free(outputs, args.force)
    net = read_net(args.net)
    converted = convert(net, args.to, read_weights(args.weights) if args.weights else None)
    write_files(net_files(converted, args.out, args.weights_out))
    print(f"{args.net}: {len(net.layer)} layers, {args.to}: {len(converted.layer)} in {', '.join(map(str, outputs))}")


if __name__ == "__main__":
    raise SystemExit(main())
