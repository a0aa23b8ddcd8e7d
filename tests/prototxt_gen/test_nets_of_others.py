"""Converting, folding and exporting nets that others wrote: names stay distinct, and Caffe computes the same."""

import numpy as np
import onnxruntime
import pytest
from trained_nets import caffe_outputs, parse, trained

from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import known_counts
from prototxt_gen.fold_batch_norm import fold
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_onnx import to_onnx
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import blob_shape, with_blobs

INPUT = 'layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 8 dim: 8 } } }\n'


def convolution(name: str, bottom: str, top: str, param: str = "num_output: 4 kernel_size: 3 pad: 1") -> str:
    return layer("Convolution", name, bottom, top, f"convolution_param {{ {param} }}")


def layer(kind: str, name: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}\n'


NETS = {
    "a prefix for two convolutions": (
        INPUT
        + convolution("block1/conv1", "data", "a") + layer("ReLU", "block1/relu1", "a", "a")
        + convolution("block1/conv2", "a", "fc") + layer("ReLU", "block1/relu2", "fc", "fc")
    ),
    "parts as to_stock calls them, twice": (
        INPUT
        + convolution("x/conv1", "data", "a") + layer("ReLU", "x/relu", "a", "a")
        + convolution("x/conv2", "a", "fc") + layer("ReLU", "x/add", "fc", "fc")
    ),
    "the prefix is a layer": (
        INPUT
        + convolution("x", "data", "a")
        + convolution("x/conv1", "a", "fc") + layer("ReLU", "x/relu", "fc", "fc")
    ),
    "batch norm in front": (
        INPUT
        + convolution("block1/conv", "data", "a")
        + layer("BatchNorm", "block2/norm", "a", "a") + layer("ReLU", "block2/relu", "a", "b")
        + convolution("block2/conv", "b", "fc") + layer("ReLU", "block1/relu", "fc", "fc")
    ),
    "batch norm with learning rates": (
        INPUT
        + convolution("c", "data", "fc")
        + layer("BatchNorm", "b", "fc", "fc", "param { lr_mult: 1 } param { lr_mult: 1 } param { lr_mult: 1 }")
        + layer("Scale", "s", "fc", "fc", "scale_param { bias_term: true }")
    ),
    "two layers of one name": (
        INPUT
        + convolution("c", "data", "a") + layer("ReLU", "same", "a", "b") + layer("ReLU", "same", "b", "fc")
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """images, and by net and "plain", "fused" or "folded": blob fc in Caffe."""
    images, nets = np.random.default_rng(1).standard_normal((2, 4, 8, 8)), {}
    for case, text in NETS.items():
        plain = trained(parse(text + layer("Softmax", "prob", "fc", "prob")))
        nets |= {(case, "plain"): plain, (case, "fused"): to_fused(plain), (case, "folded"): fold(plain)}
    found = caffe_outputs(tmp_path_factory.mktemp("nets"), images, nets)
    return images.astype(np.float32), {key: scores for key, (scores, _) in found.items()}


@pytest.mark.parametrize("case", NETS)
def test_converted_nets_compute_the_same(case, outputs):
    images, found = outputs
    plain = found[case, "plain"]
    assert np.abs(plain).max() > 0.1
    for name in ("fused", "folded"):
        np.testing.assert_allclose(found[case, name], plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    model = to_onnx(trained(parse(NETS[case])))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["fc"]
    np.testing.assert_allclose(session.run(None, {"data": images})[0], plain, rtol=0, atol=1e-4 * np.abs(plain).max())


@pytest.mark.parametrize("case", [case for case in NETS if "one name" not in case])
def test_names_stay_distinct(case):
    net = trained(parse(NETS[case]))
    for converted in (to_fused(net), fold(net), to_stock(to_fused(net))):
        names = [layer.name for layer in converted.layer]
        assert len(set(names)) == len(names)


FUSED = (
    INPUT
    + layer("FusedGroupConvolution", "a", "data", "a",
            "fused_group_convolution_param { stage { num_output: 4 } stage { num_output: 4 } }")
)  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (convolution("a/conv1", "a", "z"), "layer 'a' needs a layer 'a/conv1', but there is another one: rename it"),
        (convolution("z", "a", "a/conv1"), "layer 'a' needs a blob 'a/conv1', but there is another one: rename it"),
    ],
)
def test_taken_names_are_refused(more, message):
    with pytest.raises(Invalid, match=message):
        to_stock(parse(FUSED + more))


@pytest.mark.parametrize("shape", [(2, 4, 16), (2, 4, 8, 8, 8)])
def test_convolutions_along_other_than_two_axes_stay(shape):
    dims = " ".join(f"dim: {n}" for n in shape)
    net = parse(INPUT.replace("dim: 2 dim: 4 dim: 8 dim: 8", dims) + convolution("c", "data", "c"))
    assert [layer.type for layer in to_fused(net).layer] == ["Input", "Convolution"]


def test_blobs_of_old_files_are_folded():
    net = trained(parse(NETS["batch norm in front"]))
    weight = net.layer[1].blobs[0]
    weight.ClearField("shape")
    weight.num, weight.channels, weight.height, weight.width = 4, 4, 3, 3
    folded = fold(with_blobs(net, net))
    assert blob_shape(folded.layer[1].blobs[0]) == known_counts(net)["block1/conv"].blobs[0]


def test_weights_of_another_shape_are_refused():
    tall, flat = (
        parse(INPUT + convolution("c", "data", "c", f"num_output: 4 kernel_h: {h} kernel_w: {w}"))
        for h, w in ((3, 1), (1, 3))
    )
    message = r"layer 'c' \(Convolution\) has blobs of 4x4x3x1, 4 in them, its parameters ask for 4x4x1x3, 4"
    with pytest.raises(Invalid, match=message):
        with_blobs(flat, trained(tall))
    assert with_blobs(tall, trained(tall)) == trained(tall)


def test_what_only_the_weights_have_is_left_out_and_named(capsys):
    net = parse(INPUT + convolution("c", "data", "c"))
    weights = trained(parse(INPUT + convolution("c", "data", "c") + convolution("head", "c", "d")))
    assert with_blobs(net, weights) == trained(net)
    assert capsys.readouterr().err == "left out of the weights, as this net has no such layer: 'head'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INPUT + 'layer { name: "c" type: "Convolution" bottom: "data" bottom: "data" top: "c" top: "d" '
         "convolution_param { num_output: 4 kernel_size: 3 } }", "layer 'c' of type Convolution: more than one"),
        (INPUT.replace("dim: 4 dim: 8 dim: 8", "") + layer("ReLU", "r", "data", "r"),
         "no layer that computes something from images: data, r with one number per image are taken for labels"),
        ("", "no layer that computes something from images$"),
    ],
)  # fmt: skip
def test_what_has_no_onnx(text, message):
    net = parse(text)
    with pytest.raises(Invalid, match=message):
        to_onnx(trained(net) if net.layer and net.layer[-1].type != "Convolution" else net)
