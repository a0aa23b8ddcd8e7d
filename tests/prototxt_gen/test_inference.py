"""Folding batch norm, and ONNX: outputs of every architecture in Caffe, before and after, and in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from trained_nets import caffe_outputs, parse, trained

from prototxt_gen.architecture import Options
from prototxt_gen.architectures import ARCHITECTURES
from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import count_net
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.files import write_files
from prototxt_gen.fold_batch_norm import fold
from prototxt_gen.proto import pb, read_net, read_weights
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_onnx import to_onnx
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import net_files, with_blobs

WIDTHS = dict.fromkeys(ARCHITECTURES, 16) | {"xception": 11, "igcv2star": 24, "igcv2-I": 18, "igcv2-II": 18}
CASES = [(arch, engine) for arch in WIDTHS for engine in ("fused", "stock")]


def nets(arch: str, engine: str):
    texts = build(Experiment(arch, Options(width=WIDTHS[arch], depth=14), engine=engine)).texts
    return trained(parse(texts["deploy.prototxt"])), parse(texts["train_val.prototxt"])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """images, and by case and "plain" or "folded": the net's scores and probabilities in Caffe."""
    images, found = np.random.default_rng(1).standard_normal((3, 3, 32, 32)), {}
    for case in CASES:
        plain = nets(*case)[0]
        found |= {(case, "plain"): plain, (case, "folded"): fold(plain)}
    return images.astype(np.float32), caffe_outputs(tmp_path_factory.mktemp("nets"), images, found)


@pytest.mark.parametrize("arch,engine", CASES)
def test_folded_nets_compute_the_same(arch, engine, outputs):
    _, found = outputs
    plain, folded = found[(arch, engine), "plain"][0], found[(arch, engine), "folded"][0]
    assert plain.std() > 0.05 and np.abs(plain - plain[0]).max() > 0.05  # scores that differ between images
    np.testing.assert_allclose(folded, plain, atol=2e-5 * np.abs(plain).max())


@pytest.mark.parametrize("arch,engine", CASES)
def test_folded_nets_have_no_batch_norm_and_convert(arch, engine):
    net = nets(arch, engine)[0]
    folded = fold(net)
    kinds = {layer.type for layer in folded.layer}
    assert not kinds & {"BatchNorm", "Scale", "FusedBatchNorm"}
    if engine == "fused":
        assert kinds == {"Input", "FusedGroupConvolution", "Pooling", "InnerProduct", "Softmax"}
        assert to_fused(to_stock(folded)) == folded
    else:
        assert not any(kind.startswith("Fused") for kind in kinds)
        assert to_fused(folded) == fold(to_fused(net))
    assert count_net(folded).params == count_net(net).params


@pytest.mark.parametrize("arch,engine", CASES)
@pytest.mark.parametrize("name", ["plain", "folded"])
def test_onnx_runtime_reproduces_caffe(arch, engine, name, outputs):
    images, found = outputs
    scores, probabilities = found[(arch, engine), name]
    deploy, train_val = nets(arch, engine)
    train_val = with_blobs(train_val, deploy)
    if name == "folded":
        deploy, train_val = fold(deploy), fold(train_val)
    for net, output, expected in ((deploy, "prob", probabilities), (train_val, "fc", scores)):
        session = onnxruntime.InferenceSession(to_onnx(net).SerializeToString(), providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == ["data"]
        assert [one.name for one in session.get_outputs()] == [output]
        (actual,) = session.run(None, {"data": images})
        np.testing.assert_allclose(actual.reshape(expected.shape), expected, atol=1e-4 * max(1, np.abs(expected).max()))
        (one,) = session.run(None, {"data": images[:1]})
        np.testing.assert_allclose(one, actual[:1], atol=1e-4)


OTHERS = """
layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 6 dim: 9 dim: 9 } } }
layer { name: "bn0" type: "BatchNorm" bottom: "data" top: "bn0" }
layer { name: "rect" type: "Convolution" bottom: "bn0" top: "rect"
  convolution_param { num_output: 4 kernel_h: 1 kernel_w: 3 group: 2 } }
layer { name: "shuffle" type: "ChannelPermutation" bottom: "rect" top: "shuffle"
  channel_permutation_param { index: [ 2, 0, 3, 1 ] inverse: true } }
layer { name: "bn1" type: "BatchNorm" bottom: "shuffle" top: "bn1" batch_norm_param { eps: 0.01 } }
layer { name: "relu1" type: "ReLU" bottom: "bn1" top: "bn1" }
layer { name: "conv2" type: "Convolution" bottom: "bn1" top: "conv2"
  convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "conv2" bottom: "bn1" top: "sum" }
layer { name: "bn2" type: "BatchNorm" bottom: "sum" top: "bn2" }
layer { name: "scale2" type: "Scale" bottom: "bn2" top: "bn2" scale_param { bias_term: true } }
layer { name: "fc" type: "InnerProduct" bottom: "bn2" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def test_net_of_others(tmp_path):
    """Batch norm without a scale, behind a permutation, with names and blobs of its own; and without a convolution."""
    net = trained(parse(OTHERS))
    folded = fold(net)
    assert [layer.name for layer in folded.layer if "Norm" in layer.type] == ["bn0", "bn2"]
    assert [layer.name for layer in folded.layer if layer.type == "Scale"] == ["scale2"]
    assert folded.layer[3].name == "shuffle" and folded.layer[3].top == ["bn1"]
    results = []
    x = np.random.default_rng(2).standard_normal((2, 6, 9, 9)).astype(np.float32)
    for one in (net, folded):
        session = onnxruntime.InferenceSession(to_onnx(one).SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"data": x})[0])
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


@pytest.mark.parametrize("change,message", [
    (('batch_norm_param { eps: 0.01 }', 'batch_norm_param { use_global_stats: false }'), "'bn1' normalises"),
    (('top: "rect"', 'top: "rect" param { name: "shared" }'), "'rect' shares its weights by name"),
])  # fmt: skip
def test_what_cannot_be_folded(change, message):
    assert change[0] in OTHERS
    with pytest.raises(Invalid, match=message):
        fold(trained(parse(OTHERS.replace(*change))))


def test_blobs_of_doubles_are_folded_too():
    net = trained(parse(OTHERS))
    doubles = pb.NetParameter.FromString(net.SerializeToString())
    for layer in doubles.layer:
        for blob in layer.blobs:
            blob.double_data.extend(blob.data)
            blob.ClearField("data")
    (folded,) = (layer for layer in fold(doubles).layer if layer.name == "rect")
    assert folded == next(layer for layer in fold(net).layer if layer.name == "rect")


def test_what_another_layer_reads_too_is_not_folded():
    net = OTHERS.replace('bottom: "conv2" bottom: "bn1" top: "sum"', 'bottom: "conv2" bottom: "shuffle" top: "sum"')
    assert len(fold(trained(parse(net))).layer) == len(parse(OTHERS).layer)


@pytest.mark.parametrize("change,message", [
    (('type: "ReLU"', 'type: "TanH"'), "layer 'relu1' is of type TanH, which is not translated to ONNX"),
    (('type: "ReLU"', 'type: "NoSuch"'), "type of layer 'relu1' 'NoSuch'"),
    (('top: "sum" }', 'top: "sum" eltwise_param { operation: MAX } }'), "layer 'sum' of type Eltwise: anything but"),
    (('eps: 0.01', 'use_global_stats: false'), "layer 'bn1' normalises by the batch"),
    (('top: "bn2" }', 'top: "bn2" batch_norm_param { use_global_stats: false } }'), "layer 'bn2' normalises by the"),
])  # fmt: skip
def test_what_has_no_onnx(change, message):
    net = trained(parse(OTHERS))
    broken = with_blobs(parse(OTHERS.replace(*change)), net)
    with pytest.raises(Invalid, match=message):
        to_onnx(broken)


def test_fused_batch_norm_of_the_batch_has_no_onnx():
    net = nets("igcv2", "fused")[0]
    norm = next(layer for layer in net.layer if layer.type == "FusedBatchNorm")
    norm.fused_batch_norm_param.use_global_stats = False
    with pytest.raises(Invalid, match=f"layer '{norm.name}/norm' normalises by the batch"):
        to_onnx(net)


NAMES = """
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }
layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
layer { name: "x" type: "Scale" bottom: "x" top: "x" scale_param { bias_term: true } }
layer { name: "a" type: "Eltwise" bottom: "x" bottom: "x" top: "r" }
layer { name: "b" type: "Eltwise" bottom: "x" bottom: "r" top: "x.product" }
layer { name: "c" type: "Eltwise" bottom: "x" bottom: "x.product" top: "x.scale" }
"""


def test_layers_named_like_blobs_in_onnx():
    net = parse(NAMES)
    for values in ([2, 3], [0.5, 1]):
        net.layer[2].blobs.add(shape=pb.BlobShape(dim=[2]), data=values)
    model = to_onnx(net).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_outputs()] == ["x.scale"]
    x = np.random.default_rng(3).standard_normal((4, 2, 3, 3)).astype(np.float32)
    scaled = np.maximum(x, 0) * np.reshape([2, 3], (2, 1, 1)) + np.reshape([0.5, 1], (2, 1, 1))
    np.testing.assert_allclose(session.run(None, {"x": x})[0], 4 * scaled, rtol=1e-6)


def test_weights_that_do_not_fit():
    net = trained(parse(OTHERS))
    del net.layer[2].blobs[0].data[3:]
    with pytest.raises(Invalid, match=r"layer 'rect' \(Convolution\) has blobs of 3, 4 values .* ask for 4x\?, 4"):
        fold(net)
    with pytest.raises(Invalid, match=r"layer 'rect' \(Convolution\) has blobs of 3, 4 values .* ask for 4x3x1x3, 4"):
        to_onnx(net)
    net.layer[4].ClearField("blobs")
    with pytest.raises(Invalid, match=r"layer 'bn1' \(BatchNorm\) has blobs of no values"):
        fold(net)


def test_commands(run_tool, tmp_path):
    deploy, _ = nets("igcv2", "fused")
    write_files(net_files(deploy, tmp_path / "net.prototxt", tmp_path / "net.caffemodel"))
    arguments = ["net.prototxt", "net.caffemodel", "--out", "new.prototxt", "--weights-out", "new.caffemodel"]
    done = run_tool("fold_batch_norm", *arguments)
    assert done.returncode == 0 and "15 of 15 batch norms folded, 34 layers to 19" in done.stdout, done
    folded = with_blobs(read_net(tmp_path / "new.prototxt"), read_weights(tmp_path / "new.caffemodel"))
    assert folded == fold(deploy)
    assert "new.prototxt is there already" in run_tool("fold_batch_norm", *arguments).stderr
    done = run_tool("to_onnx", "new.prototxt", "new.caffemodel", "--out", "new.onnx")
    assert done.returncode == 0 and "data N x 3 x 32 x 32 to prob N x 100" in done.stdout, done
    assert onnx.load(tmp_path / "new.onnx") == to_onnx(folded)
    data = 'layer { name: "input" type: "AugmentedData" top: "data" augmented_data_param { crop_size: 32 mean: 1 } }'
    (tmp_path / "data.prototxt").write_text(data + (tmp_path / "new.prototxt").read_text().partition("}\n}\n")[2])
    from_data = ["to_onnx", "data.prototxt", "new.caffemodel", "--out", "data.onnx"]
    assert "is not in the prototxt: give --input C,H,W" in run_tool(*from_data).stderr
    done = run_tool(*from_data, "--input", "3,32,32")
    assert done.returncode == 0 and "data N x 3 x 32 x 32 to prob N x 100" in done.stdout, done
    for tool, options in (("fold_batch_norm", arguments[2:] + ["--force"]), ("to_onnx", ["--out", "x"])):
        done = run_tool(tool, "net.prototxt", "none.caffemodel", *options)
        assert (
            done.returncode == 2
            and done.stderr == f"{tool}: error: cannot read none.caffemodel: No such file or directory\n"
        )
