"""A net together with its blobs: a prototxt and a caffemodel read as one message, and written as two files."""

from pathlib import Path

import numpy as np

from prototxt_gen.command_line import Invalid, Parser
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

    Blobs of data layers (how far a run has read) are left out where the net has another data layer. Raises Invalid if
    other layers of the weights are not in the net, or the weights lack a layer's blobs.
    """
    result = without_blobs(net)
    blobs = {layer.name: layer.blobs for layer in weights.layer if layer.blobs}
    data = {layer.name for layer in weights.layer if is_data_layer(layer)}
    strangers = blobs.keys() - {layer.name for layer in net.layer} - data
    if strangers:
        names = ", ".join(repr(name) for name in sorted(strangers)[:3])
        hint = "; convert_engine converts a net and its weights together" if _other_engine(net, strangers) else ""
        raise Invalid(f"the weights are of another net: this one has no layer {names}{hint}")
    for layer in result.layer:
        if layer.type != "Input":
            layer.blobs.extend(blobs.get(layer.name, []))
        if not layer.blobs and _has_weights(layer):
            raise Invalid(f"the weights have no blobs for layer '{layer.name}' ({layer.type}): are they of this net?")
    return result


def _other_engine(net: "pb.NetParameter", strangers: set[str]) -> bool:
    """True if the net has X for the strangers' X/part, or the other way round."""
    names = {layer.name for layer in net.layer}
    return bool(names & set(map(prefix, strangers)) or strangers & set(map(prefix, names)))


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
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise Invalid(f"--out and --weights-out are both {outputs[0]}: the prototxt and the weights need a file each")
    taken = [path for path in outputs if exists(path)]
    if taken and not force:
        raise Invalid(f"{taken[0]} is there already: --force replaces it")


def net_files(net: "pb.NetParameter", prototxt: Path, caffemodel: Path | None) -> dict[Path, bytes]:
    """What write_files is to write for a net with blobs; without a caffemodel the prototxt alone."""
    files = {prototxt: to_text(without_blobs(net)).encode()}
    return files if caffemodel is None else {**files, caffemodel: net.SerializeToString()}
