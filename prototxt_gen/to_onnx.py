"""Writes a net and its weights as an ONNX model that computes the same in any ONNX runtime.

Takes the nets of our generators, in either engine, with batch norm or with it folded away. The batch size is left open.
Data layers become inputs; what reads labels (loss, accuracy) is left out.
"""

import itertools
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.complexity import add_input_option, count_net, included
from prototxt_gen.files import write_files
from prototxt_gen.input_shapes import is_data_layer, net_inputs
from prototxt_gen.layer_shapes import Shape, geometry, scales_channels
from prototxt_gen.permutations import permutation
from prototxt_gen.proto import pb, read_net, read_weights
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import (
    add_output_options,
    batch_norm_statistics,
    blob_arrays,
    check_free,
    with_blobs,
)

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError:
    raise SystemExit("error: the onnx package is not installed: pip install onnx, or this project as .[onnx]") from None

OPSET = 17  # of 2022: every runtime of today reads it
IR_VERSION = 8


def to_onnx(net: "pb.NetParameter", image: Shape | None = None) -> "onnx.ModelProto":
    """The TEST net, with blobs, as a checked ONNX model. image: C x H x W of data layers that do not tell it.

    Raises Invalid, naming the layer and its type, for what has no translation here and for blobs that do not fit.
    """
    stock = to_stock(net)
    layers = [layer for layer in stock.layer if included(layer, "TEST")]
    export = _Export(blobs={blob for layer in stock.layer for blob in (*layer.bottom, *layer.top)})
    for name, shape in net_inputs(stock).items():
        export.input(name, shape)
    for layer, count in zip(layers, count_net(stock, "TEST", image).layers, strict=True):
        if is_data_layer(layer):
            for name, shape in zip(layer.top, count.tops, strict=False):
                export.input(name, shape)
        elif export.labels.intersection(layer.bottom):
            export.labels.update(layer.top)
        elif layer.type not in _TRANSLATE:
            raise Invalid(
                f"layer '{layer.name}' is of type {layer.type}, which is not translated to ONNX: there are "
                + ", ".join(sorted(_TRANSLATE))
            )
        else:
            _require(layer, len(layer.top) == 1, "more than one top")
            _TRANSLATE[layer.type](export, layer, count)
    if not export.nodes:
        labels = ", ".join(sorted(export.labels))
        raise Invalid(
            "the net has no layer that computes something from images"
            + (f": {labels} with one number per image are taken for labels" if labels else "")
        )
    return export.model(stock.name or "net")


class _Export:
    """A graph that grows node by node."""

    def __init__(self, blobs: set[str]):
        self.nodes, self.constants, self.inputs = [], [], []
        self.names = blobs  # of tensors, which share one space; what a blob holds first has its name
        self.values = {}  # blob -> (the tensor that holds it now, its shape): in ONNX nothing is in place
        self.labels = set()  # blobs that are, or come from, labels

    def input(self, name: str, shape):
        if len(shape) == 1:
            self.labels.add(name)
            return
        self.inputs.append(_tensor(name, shape))
        self.values[name] = (name, shape)

    def unique(self, name: str) -> str:
        """A new tensor's name: the one wanted, with a number behind it if it is taken."""
        numbered = (f"{name}.{i}" for i in itertools.count(2))
        found = next(one for one in itertools.chain([name], numbered) if one not in self.names)
        self.names.add(found)
        return found

    def node(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        kind, name = np.float32 if array.dtype.kind == "f" else np.int64, self.unique(name)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, kind), name))
        return name

    def bottoms(self, layer) -> list[str]:
        return [self.values[bottom][0] for bottom in layer.bottom]

    def last(self, kind: str, layer, count, inputs: list[str], constants=None, **attributes):
        """The node that writes the layer's top, with constants {name: array} as its last inputs."""
        top = layer.top[0]
        constants = [self.constant(f"{layer.name}.{name}", array) for name, array in (constants or {}).items()]
        output = self.unique(layer.name) if top in self.values else top
        self.values[top] = (self.node(kind, [*inputs, *constants], output, **attributes), count.tops[0])

    def name_output(self, tensor: str, blob: str):
        """A result is called like its blob, also where layers in place wrote what the blob held before."""
        if tensor == blob or blob in {given.name for given in self.inputs}:
            return
        swap = {tensor: blob, blob: tensor}
        for node in self.nodes:
            node.input[:] = [swap.get(name, name) for name in node.input]
            node.output[:] = [swap.get(name, name) for name in node.output]
        self.values[blob] = (blob, self.values[blob][1])

    def model(self, name: str) -> "onnx.ModelProto":
        read = {tensor for node in self.nodes for tensor in node.input}
        results = {blob: tensor for blob, (tensor, _) in self.values.items() if tensor not in read}
        for blob, tensor in results.items():
            self.name_output(tensor, blob)
        outputs = [_tensor(*self.values[blob]) for blob in results]
        graph = helper.make_graph(self.nodes, name, self.inputs, outputs, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="caffe-igc")
        onnx.checker.check_model(model, full_check=True)
        return model


def _tensor(name: str, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape[1:]])


def _convolution(export, layer, count):
    param = layer.convolution_param
    _require(layer, param.axis == 1, "axis other than 1")
    _require(layer, len(layer.bottom) == 1, "more than one bottom")
    kernel, stride, pad, dilation = geometry(layer, len(count.tops[0]) - 2)
    constants = dict(zip(("weight", "bias"), blob_arrays(layer, count.blobs), strict=False))
    shape = {"kernel_shape": kernel, "strides": stride, "pads": pad + pad, "dilations": dilation, "group": param.group}
    export.last("Conv", layer, count, export.bottoms(layer), constants, **shape)


def _permutation(export, layer, count):
    """Gather, for interleaves too: ONNX Runtime takes longer for Reshape, Transpose, Reshape."""
    order = permutation(layer.channel_permutation_param, count.tops[0][1])
    export.last("Gather", layer, count, export.bottoms(layer), {"order": order}, axis=1)


def _batch_norm(export, layer, count):
    (channels,) = count.blobs[0]
    mean, variance = batch_norm_statistics(layer, channels)
    constants = {"scale": np.ones_like(mean), "bias": np.zeros_like(mean), "mean": mean, "variance": variance}
    epsilon = layer.batch_norm_param.eps
    export.last("BatchNormalization", layer, count, export.bottoms(layer), constants, epsilon=epsilon)


def _scale(export, layer, count):
    _require(layer, scales_channels(layer), "anything but a scale per channel")
    scale, *bias = (blob.reshape(-1, *[1] * (len(count.tops[0]) - 2)) for blob in blob_arrays(layer, count.blobs))
    if not bias:
        export.last("Mul", layer, count, export.bottoms(layer), {"scale": scale})
        return
    inputs = [*export.bottoms(layer), export.constant(f"{layer.name}.scale", scale)]
    product = export.node("Mul", inputs, export.unique(f"{layer.name}.product"))
    export.last("Add", layer, count, [product], {"bias": bias[0]})


def _eltwise(export, layer, count):
    param = layer.eltwise_param
    plain = param.operation == pb.EltwiseParameter.SUM and all(c == 1 for c in param.coeff)
    _require(layer, plain and len(layer.bottom) == 2, "anything but the sum of two blobs")
    export.last("Add", layer, count, export.bottoms(layer))


def _relu(export, layer, count):
    _require(layer, layer.relu_param.negative_slope == 0, "negative_slope")
    export.last("Relu", layer, count, export.bottoms(layer))


def _pooling(export, layer, count):
    param = layer.pooling_param
    kinds = {pb.PoolingParameter.AVE: "GlobalAveragePool", pb.PoolingParameter.MAX: "GlobalMaxPool"}
    _require(layer, param.global_pooling and param.pool in kinds, "anything but global average and maximum")
    export.last(kinds[param.pool], layer, count, export.bottoms(layer))


def _inner_product(export, layer, count):
    param = layer.inner_product_param
    _require(layer, param.axis == 1, "axis other than 1")
    constants = dict(zip(("weight", "bias"), blob_arrays(layer, count.blobs), strict=False))
    flat = export.node("Flatten", export.bottoms(layer), export.unique(f"{layer.name}.flat"), axis=1)
    export.last("Gemm", layer, count, [flat], constants, transB=int(not param.transpose))


def _softmax(export, layer, count):
    export.last("Softmax", layer, count, export.bottoms(layer), axis=layer.softmax_param.axis)


def _require(layer, condition: bool, what: str):
    if not condition:
        raise Invalid(f"layer '{layer.name}' of type {layer.type}: {what} is not translated to ONNX")


_TRANSLATE = {
    "BatchNorm": _batch_norm,
    "ChannelPermutation": _permutation,
    "Convolution": _convolution,
    "Eltwise": _eltwise,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Scale": _scale,
    "Softmax": _softmax,
}


@command
def main(argv=None):
    parser = Parser(prog="to_onnx", description=__doc__.split("\n")[0])
    parser.add_argument("net", type=Path, help="prototxt of a net")
    parser.add_argument("weights", type=Path, help="its .caffemodel")
    add_output_options(parser)
    add_input_option(parser)
    args = parser.parse_args(argv)
    check_free([args.out], args.force)
    model = to_onnx(with_blobs(read_net(args.net), read_weights(args.weights)), args.input)
    write_files({args.out: model.SerializeToString()})
    shapes = ", ".join(f"{one.name} {_dims(one)}" for one in model.graph.input)
    results = ", ".join(f"{one.name} {_dims(one)}" for one in model.graph.output)
    print(f"{args.out}: {shapes} to {results}, {len(model.graph.node)} nodes, opset {OPSET}")


def _dims(tensor) -> str:
    return " x ".join(str(dim.dim_param or dim.dim_value) for dim in tensor.type.tensor_type.shape.dim)


if __name__ == "__main__":
    raise SystemExit(main())
