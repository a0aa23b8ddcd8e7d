"""A net together with its blobs: a prototxt and a caffemodel read as one message, and written as two files."""

import os
import sys
from pathlib import Path

import numpy as np

from prototxt_gen.command_line import Invalid, Parser
from prototxt_gen.complexity import known_counts
from prototxt_gen.files import exists
from prototxt_gen.graph import prefix
from prototxt_gen.input_shapes import is_data_layer
from prototxt_gen.proto import pb, to_text

_WEIGHTED = {
    "BatchNorm",
    "Convolution",
    "Deconvolution",
    "Embed",
    "FusedBatchNorm",
    "FusedGroupConvolution",
    "InnerProduct",
    "LSTM",
    "PReLU",
    "Parameter",
    "RNN",
}


def with_blobs(net: "pb.NetParameter", weights: "pb.NetParameter") -> "pb.NetParameter":
    """The net with the blobs of the layers of the same names in `weights`.

    Layers that only the weights have are left out, as Caffe does, and named on stderr; those of data layers (how far a
    run has read) without a word. Raises Invalid if the weights lack a layer's blobs, or they have other shapes than the
    layer asks for.
    """
    result = without_blobs(net)
    blobs = {layer.name: layer.blobs for layer in weights.layer if layer.blobs}
    data = {layer.name for layer in weights.layer if is_data_layer(layer)}
    strangers = sorted(blobs.keys() - {layer.name for layer in net.layer} - data)
    names = ", ".join(repr(name) for name in strangers[:3]) + (", ..." if len(strangers) > 3 else "")
    for layer in result.layer:
        if layer.type != "Input":
            layer.blobs.extend(blobs.get(layer.name, []))
        if not layer.blobs and _has_weights(layer):
            others = f"; they have {names}, which this net lacks" if strangers else ""
            if _other_engine(net, strangers):
                others += ": convert_engine converts a net and its weights together"
            raise Invalid(
                f"the weights are of another net: they have no blobs for layer '{layer.name}' ({layer.type}){others}"
            )
    _check_shapes(result)
    if strangers:
        print(f"left out of the weights, as this net has no such layer: {names}", file=sys.stderr)
    return result


def _check_shapes(net: "pb.NetParameter"):
    """Raises Invalid where a layer's blobs have not the shapes that it asks for, as far as the prototxt tells them."""
    counts = known_counts(net)
    for layer in net.layer:
        if not layer.blobs or layer.name not in counts:
            continue
        found, wanted = [blob_shape(blob) for blob in layer.blobs], counts[layer.name].blobs
        if [_full(shape) for shape in found] != [_full(shape) for shape in wanted]:
            raise Invalid(
                f"the weights are of another net: layer '{layer.name}' ({layer.type}) has blobs of {_shapes(found)} in "
                f"them, its parameters ask for {_shapes(wanted)}"
            )


def _full(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Four dimensions or more: blobs of old files have ones in front."""
    return (1,) * (4 - len(shape)) + shape


def _shapes(shapes) -> str:
    return ", ".join("x".join(map(str, shape)) or "one value" for shape in shapes) or "no values"


def _other_engine(net: "pb.NetParameter", strangers: list[str]) -> bool:
    """True if the net has X for the strangers' X/part, or the other way round."""
    names = {layer.name for layer in net.layer}
    return bool(names & set(map(prefix, strangers)) or set(strangers) & set(map(prefix, names)))


def _has_weights(layer) -> bool:
    if layer.include or layer.exclude:  # weights of the other phase's net may lack it
        return False
    if layer.type == "Scale":
        return len(layer.bottom) == 1 or layer.scale_param.bias_term
    return layer.type in _WEIGHTED or (layer.type == "Bias" and len(layer.bottom) == 1)


def without_blobs(net: "pb.NetParameter") -> "pb.NetParameter":
    result = pb.NetParameter()
    result.CopyFrom(net)
    for layer in result.layer:
        layer.ClearField("blobs")
    return result


_LEGACY = ("num", "channels", "height", "width")  # of blobs written before 2015


def blob_shape(blob) -> tuple[int, ...]:
    """As Caffe reads it; () of a blob that does not tell."""
    if any(blob.HasField(name) for name in _LEGACY):
        return tuple(getattr(blob, name) for name in _LEGACY)
    return tuple(blob.shape.dim)


def blob_arrays(layer, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """The layer's blobs, float64, in the given shapes (-1 as in numpy). Raises Invalid, naming the layer."""
    arrays = [np.array(blob.double_data or blob.data, np.float64) for blob in layer.blobs]
    try:
        return [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]
    except ValueError:
        sizes = ", ".join(str(array.size) for array in arrays) or "no"
        wanted = ", ".join("x".join(map(str, shape)).replace("-1", "?") for shape in shapes)
        raise Invalid(
            f"layer '{layer.name}' ({layer.type}) has blobs of {sizes} values in the weights: its parameters ask for "
            f"{wanted}"
        ) from None


def batch_norm_statistics(layer, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance that a BatchNorm normalises by in TEST. Raises Invalid where they are those of the batch."""
    param = layer.batch_norm_param
    if param.HasField("use_global_stats") and not param.use_global_stats:
        raise Invalid(
            f"layer '{layer.name}' normalises by the batch (use_global_stats: false): only by its moving averages can "
            "it be folded or translated"
        )
    mean, variance, factor = blob_arrays(layer, [(channels,), (channels,), (1,)])
    average = 0 if factor[0] == 0 else 1 / factor[0]
    return mean * average, variance * average


def set_blob(blob, array: np.ndarray):
    """Overwrites a BlobProto with float32 values."""
    blob.Clear()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.astype(np.float32).ravel().tolist())


def add_output_options(parser: Parser):
    parser.add_argument("--out", type=Path, required=True, metavar="NET", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def check_free(outputs: list[Path], force: bool):
    """Raises Invalid if one of the files is there already, or two are one."""
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise Invalid(f"--out and --weights-out are both {outputs[0]}: the prototxt and the weights need a file each")
    taken = [path for path in outputs if exists(path)]
    if taken and not force:
        raise Invalid(f"{taken[0]} is there already: --force replaces it")


def net_files(net: "pb.NetParameter", prototxt: Path, caffemodel: Path | None) -> dict[Path, bytes]:
    """What write_files is to write for a net with blobs; without a caffemodel the prototxt alone."""
    files = {prototxt: to_text(without_blobs(net)).encode()}
    return files if caffemodel is None else {**files, caffemodel: net.SerializeToString()}
