"""Caffe's protobuf messages with our layers in them, and the way prototxt is read and written."""

from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from prototxt_gen.command_line import Invalid
from prototxt_gen.files import file_errors

try:
    from caffe.proto import caffe_pb2 as pb
except ImportError as error:
    raise SystemExit(
        f"error: pycaffe is not installed ({error}): run `make build` or `pip install .` in the project's root"
    ) from None
if "fused_group_convolution_param" not in pb.LayerParameter.DESCRIPTOR.fields_by_name:
    raise SystemExit(
        f"error: {pb.__file__} belongs to a Caffe without our layers: run `pip install .` in the project's root"
    )


def to_text(message) -> str:
    """Prototxt of a message. In a net, layers with lists of channels put each list on one line."""
    if not isinstance(message, pb.NetParameter):
        return text_format.MessageToString(message)
    head = pb.NetParameter()
    head.CopyFrom(message)
    del head.layer[:]
    return text_format.MessageToString(head) + "".join(
        text_format.MessageToString(pb.NetParameter(layer=[layer]), use_short_repeated_primitives=_has_index(layer))
        for layer in message.layer
    )


def _has_index(layer) -> bool:
    fused = layer.fused_group_convolution_param
    permutations = [stage.permutation for stage in fused.stage] + [fused.output_permutation]
    return any(p.index for p in [layer.channel_permutation_param, *permutations])


def read_net(path: Path) -> "pb.NetParameter":
    """The net in a prototxt. Raises Invalid, naming the file and line."""
    return _current(_parse(path, pb.NetParameter(), "net"), path, "upgrade_net_proto_text")


def read_solver(path: Path) -> "pb.SolverParameter":
    """The solver in a prototxt. Raises Invalid, naming the file and line."""
    return _parse(path, pb.SolverParameter(), "solver")


def _parse(path: Path, message, kind: str):
    try:
        with file_errors("read", path):
            text = Path(path).read_text()
        return text_format.Parse(text, message)
    except UnicodeDecodeError:
        raise Invalid(f"{path} is not text: a prototxt is wanted here") from None
    except text_format.ParseError as error:
        raise Invalid(f"{path} is no {kind} in prototxt: line {error}".replace("\n", " ")) from None


def read_weights(path: Path) -> "pb.NetParameter":
    """The layers with their blobs in a .caffemodel. Raises Invalid, naming the file."""
    net = pb.NetParameter()
    with file_errors("read", path):
        content = Path(path).read_bytes()
    try:
        net.ParseFromString(content)
    except DecodeError:
        raise Invalid(f"{path} is no binary caffemodel (HDF5 weights: load and save them with pycaffe first)") from None
    return _current(net, path, "upgrade_net_proto_binary")


def _current(net, path, upgrade):
    if net.layers:
        raise Invalid(f"{path} is in the old format (`layers`): run `{upgrade} {path} NEW` first")
    return net
