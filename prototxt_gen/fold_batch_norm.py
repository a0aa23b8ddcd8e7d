"""Folds batch norm and its scale into the weights and biases of the convolutions before them, for inference.

Works on any net. What follows a batch norm, the sum with a skip connection and the ReLU, goes into our fused layers
where the net has them and stays in plain layers elsewhere. The new net computes what the old one does in TEST, to
rounding.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.files import write_files
from prototxt_gen.graph import Graph, phases, prefix
from prototxt_gen.layer_shapes import scales_channels
from prototxt_gen.permutations import permutation
from prototxt_gen.proto import pb, read_net, read_weights
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_stock import is_fused, to_stock
from prototxt_gen.weights import (
    add_output_options,
    batch_norm_statistics,
    blob_arrays,
    blob_shape,
    check_free,
    net_files,
    set_blob,
    with_blobs,
)


def fold(net: "pb.NetParameter") -> "pb.NetParameter":
    """The net, with blobs, without the batch norms that follow a convolution; in fused layers if it has any.

    Raises Invalid, naming the layer, where blobs do not fit or folding would change what the net computes.
    """
    if any(is_fused(layer) for layer in net.layer):
        return to_fused(fold(to_stock(net)))
    graph = Graph(net)
    gone = set()
    for i, layer in enumerate(graph.layers):
        if layer.type == "BatchNorm":
            gone.update(_fold_one(graph, i))
    result = pb.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    result.layer.extend(layer for i, layer in enumerate(graph.layers) if i not in gone)
    return result


def batch_norms(net: "pb.NetParameter") -> list[str]:
    return [layer.name for layer in net.layer if layer.type in ("BatchNorm", "FusedBatchNorm")]


def _fold_one(graph: Graph, i: int) -> list[int]:
    """Folds BatchNorm i, with the Scale behind it, if a convolution is before it: places of the layers now in vain."""
    layers = graph.layers
    chain = _convolution_before(graph, i)
    if not chain:
        return []
    norms, behind = [i], graph.next(i)
    if behind is not None and scales_channels(layers[behind]):
        norms.append(behind)
    top = layers[norms[-1]].top[0]
    if not graph.untouched(top, [*chain, *norms], reading=True):
        return []
    scale, shift = _factors([layers[j] for j in norms], layers[chain[0]].convolution_param.num_output)
    for j in reversed(chain[1:]):  # to the channels in front of the permutation
        order = permutation(layers[j].channel_permutation_param, len(scale))
        scale[order], shift[order] = scale.copy(), shift.copy()
    _fold_into(layers[chain[0]], scale, shift)
    graph.rename(chain[-1], layers[chain[-1]].top[0], top)
    _rename_parts(graph, i, prefix(layers[chain[0]].name) or layers[chain[0]].name)
    return norms


def _convolution_before(graph: Graph, i: int) -> list[int]:
    """Places of the Convolution whose output BatchNorm i alone reads, and of the permutations between them."""
    chain, reader = [], i
    while True:
        before = graph.writers[reader][graph.layers[reader].bottom[0]]
        if before is None:
            return []
        layer = graph.layers[before]
        alone = len(layer.top) == 1 and graph.readers[before, layer.top[0]] == [reader]
        same_phases = phases(layer) == phases(graph.layers[i])
        if not (alone and same_phases) or layer.type not in ("Convolution", "ChannelPermutation"):
            return []
        chain.insert(0, before)
        if layer.type == "Convolution":
            return chain if layer.convolution_param.axis == 1 and len(layer.bottom) == 1 else []
        reader = before


def _factors(norms, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """BatchNorm [+ Scale] as scale * x + shift, per channel."""
    norm, *scales = norms
    mean, variance = batch_norm_statistics(norm, channels)
    scale = (variance + norm.batch_norm_param.eps) ** -0.5
    shift = -mean * scale
    for layer in scales:
        gamma, *beta = blob_arrays(layer, [(channels,)] * (1 + layer.scale_param.bias_term))
        scale, shift = scale * gamma, shift * gamma + (beta[0] if beta else 0)
    return scale, shift


def _fold_into(convolution, scale: np.ndarray, shift: np.ndarray):
    """weight *= scale, bias = bias * scale + shift, per output channel."""
    param = convolution.convolution_param
    if any(spec.name for spec in convolution.param):
        raise Invalid(f"layer '{convolution.name}' shares its weights by name: batch norm cannot be folded into them")
    weight, *bias = blob_arrays(convolution, [(param.num_output, -1), (param.num_output,)][: 1 + param.bias_term])
    shape = blob_shape(convolution.blobs[0]) or weight.shape
    if not param.bias_term:
        param.ClearField("bias_term")
        convolution.blobs.add()
    set_blob(convolution.blobs[0], (weight * scale[:, None]).reshape(shape))
    set_blob(convolution.blobs[1], shift + (bias[0] * scale if bias else 0))


def _rename_parts(graph: Graph, i: int, new: str):
    """What to_stock made of the same FusedBatchNorm as BatchNorm i, X_bn/add and X_bn/relu, belongs to the convolution
    now."""
    old, _, kind = graph.layers[i].name.rpartition("/")
    names = {f"{old}/{part}": f"{new}/{part}" for part in ("add", "relu")} if kind == "norm" else {}
    for j, layer in enumerate(graph.layers):
        if layer.name in names and not graph.has_name(names[layer.name], [j]):
            layer.name = names[layer.name]


@command
def main(argv=None):
    parser = Parser(prog="fold_batch_norm", description=__doc__.split("\n")[0])
    parser.add_argument("net", type=Path, help="prototxt of a net")
    parser.add_argument("weights", type=Path, help="its .caffemodel")
    add_output_options(parser)
    parser.add_argument("--weights-out", type=Path, required=True, metavar="MODEL", help=".caffemodel to write")
    args = parser.parse_args(argv)
    check_free([args.out, args.weights_out], args.force)
    net = with_blobs(read_net(args.net), read_weights(args.weights))
    folded = fold(net)
    write_files(net_files(folded, args.out, args.weights_out))
    before, left = batch_norms(net), batch_norms(folded)
    print(
        f"{args.net}: {len(before) - len(left)} of {len(before)} batch norms folded, {len(net.layer)} layers to "
        f"{len(folded.layer)}"
        + (f"; left, as no convolution that nothing else reads is before them: {', '.join(left)}" if left else "")
    )


if __name__ == "__main__":
    raise SystemExit(main())
