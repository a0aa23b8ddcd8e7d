"""Nets and weights between our layers and plain Caffe's, both ways."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from nets import experiment, label, table_rows
from test_caffe import make_dataset

from prototxt_gen.architecture import Options
from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import count_net
from prototxt_gen.convert_engine import convert
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.proto import pb, read_net, read_weights, to_text
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import without_blobs


def parse(text):
    return text_format.Parse(text, pb.NetParameter())


def with_random_blobs(net):
    """The net with blobs of the right shapes in every layer."""
    rng, result = np.random.default_rng(0), pb.NetParameter()
    result.CopyFrom(net)
    shapes = {layer.name: layer.blobs for layer in count_net(net, "TRAIN", (3, 32, 32)).layers}
    for layer in result.layer:
        for shape in shapes.get(layer.name, []):
            values = rng.standard_normal(int(np.prod(shape))).astype(np.float32)
            layer.blobs.add(shape=pb.BlobShape(dim=shape), data=values.tolist())
    return result


def types(net):
    return [(layer.name, layer.type) for layer in net.layer]


@pytest.mark.parametrize("table,row", table_rows("table2", "table3", "table4", "table5", "table6"), ids=label)
def test_there_and_back(table, row):
    texts = build(experiment(table, row)).texts
    for name in ("train_val.prototxt", "deploy.prototxt"):
        fused = parse(texts[name])
        stock = to_stock(fused)
        assert not any(layer.type.startswith("Fused") for layer in stock.layer)
        assert to_fused(stock) == fused == to_fused(fused)
        assert to_stock(to_fused(stock)) == stock


def test_blobs_stay_bit_for_bit():
    fused = with_random_blobs(parse(build(Experiment("igcv2", Options(width=64, depth=8))).texts["train_val.prototxt"]))
    stock = to_stock(fused)
    blobs = [blob for layer in fused.layer for blob in layer.blobs]
    assert [blob for layer in stock.layer for blob in layer.blobs] == blobs and len(blobs) > 50
    counts = {layer.name: layer.blobs for layer in count_net(stock, "TRAIN").layers}
    for layer in stock.layer:
        if layer.blobs:
            assert [tuple(blob.shape.dim) for blob in layer.blobs] == counts[layer.name]
    assert to_fused(stock) == fused


FOREIGN = """
layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 6 dim: 9 dim: 9 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param { eps: 0.001 }
  param { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 } }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true }
  param { lr_mult: 2 decay_mult: 0 } param { lr_mult: 3 decay_mult: 0 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "dw2" type: "Convolution" bottom: "conv1" top: "dw2" param { lr_mult: 4 } param { lr_mult: 5 }
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 group: 6 } }
layer { name: "shuffle2" type: "ChannelPermutation" bottom: "dw2" top: "shuffle2"
  channel_permutation_param { index: [ 5, 4, 3, 2, 1, 0 ] } }
layer { name: "pw2" type: "Convolution" bottom: "shuffle2" top: "pw2" param { name: "shared" }
  convolution_param { num_output: 6 kernel_size: 1 bias_term: false group: 2 } }
layer { name: "bn2" type: "BatchNorm" bottom: "pw2" top: "bn2" }
layer { name: "scale2" type: "Scale" bottom: "bn2" top: "bn2" scale_param { bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "bn2" top: "sum" }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "relu2" }
layer { name: "rect" type: "Convolution" bottom: "relu2" top: "rect"
  convolution_param { num_output: 4 kernel_h: 1 kernel_w: 3 group: 2 } }
layer { name: "bn3" type: "BatchNorm" bottom: "rect" top: "bn3" }
layer { name: "relu3" type: "ReLU" bottom: "bn3" top: "bn3" relu_param { negative_slope: 0.1 } }
layer { name: "dropout" type: "Dropout" bottom: "bn3" top: "bn3" }
layer { name: "fc" type: "InnerProduct" bottom: "bn3" top: "fc" inner_product_param { num_output: 5 } }
"""


def test_a_net_of_others():
    stock = with_random_blobs(parse(FOREIGN))
    fused = to_fused(stock)
    assert types(fused) == [
        ("input", "Input"), ("conv1", "FusedGroupConvolution"), ("bn1", "FusedBatchNorm"),
        ("dw2", "FusedGroupConvolution"), ("bn2", "FusedBatchNorm"), ("rect", "Convolution"), ("bn3", "BatchNorm"),
        ("relu3", "ReLU"), ("dropout", "Dropout"), ("fc", "InnerProduct")]  # fmt: skip
    bn1, dw2, bn2 = fused.layer[2:5]
    assert (list(bn1.bottom), list(bn1.top)) == (["conv1"], ["conv1"])
    assert not bn1.fused_batch_norm_param.relu_gradient and bn2.fused_batch_norm_param.relu_gradient
    assert bn1.fused_batch_norm_param.relu and bn1.fused_batch_norm_param.eps == np.float32(0.001)
    assert [p.lr_mult for p in bn1.param] == [0, 0, 0, 2, 3] and all(p.decay_mult == 0 for p in bn1.param)
    assert (list(bn2.bottom), list(bn2.top)) == (["pw2", "conv1_skip"], ["relu2"])
    assert [p.lr_mult for p in dw2.param] == [4, 5, 1] and dw2.param[2].name == "shared"
    assert [s.group for s in dw2.fused_group_convolution_param.stage] == [6, 2]
    assert list(dw2.fused_group_convolution_param.stage[1].permutation.index) == [5, 4, 3, 2, 1, 0]
    assert (list(dw2.bottom), list(dw2.top)) == (["conv1"], ["pw2", "conv1_skip"])
    assert dw2.fused_group_convolution_param.bottom_relu
    blobs = [blob for layer in stock.layer for blob in layer.blobs]
    assert [blob for layer in fused.layer for blob in layer.blobs] == blobs
    back = to_stock(fused)
    assert [blob for layer in back.layer for blob in layer.blobs] == blobs
    assert count_net(back).totals() == count_net(fused).totals() == count_net(stock).totals()


def test_loss_weights_go_along():
    text = FOREIGN.replace('name: "relu1"', 'name: "relu1" loss_weight: 2').replace(
        'name: "pw2"', 'name: "pw2" loss_weight: 3'
    )
    fused = to_fused(parse(text))
    assert {layer.name: list(layer.loss_weight) for layer in fused.layer if layer.loss_weight} == {
        "bn1": [2],
        "dw2": [3],
    }
    back = {layer.name: list(layer.loss_weight) for layer in to_stock(fused).layer if layer.loss_weight}
    assert back == {"bn1/relu": [2], "dw2/conv2": [3]}


@pytest.mark.parametrize("change", [
    ('bottom: "dw2" top: "shuffle2"', 'bottom: "data" top: "shuffle2"'),  # dw2 is read by nobody, the shuffle by pw2
    ('bottom: "conv1" bottom: "bn2" top: "sum"', 'bottom: "dw2" bottom: "bn2" top: "sum"'),  # dw2 has two readers
    ('bottom: "conv1" bottom: "bn2" top: "sum"',
     'bottom: "conv1" bottom: "bn2" top: "sum" eltwise_param { operation: MAX }'),
    ('bottom: "conv1" bottom: "bn2" top: "sum"',
     'bottom: "conv1" bottom: "bn2" top: "sum" eltwise_param { coeff: 1 coeff: -1 }'),
    ('name: "shuffle2"', 'name: "shuffle2" include { phase: TRAIN }'),
    ('top: "relu2" }', 'top: "relu2" relu_param { negative_slope: 0.5 } }'),
])  # fmt: skip
def test_what_must_not_be_fused_is_not(change):
    assert change[0] in FOREIGN
    stock = parse(FOREIGN.replace(*change))
    fused = to_fused(stock)
    assert len(fused.layer) > len(to_fused(parse(FOREIGN)).layer)
    if "include" not in change[1]:
        assert count_net(fused).totals() == count_net(stock).totals()


def test_bad_weights():
    net = parse(FOREIGN)
    weights = with_random_blobs(net)
    weights.layer[5].blobs.pop()
    with pytest.raises(Invalid, match=r"layer 'dw2' \(Conv.* has blobs of 6x1x3x3 in them, .* ask for 6x1x3x3, 6$"):
        convert(net, "fused", weights)
    weights.layer[5].name = "other"
    with pytest.raises(
        Invalid, match=r"no blobs for layer 'dw2' \(Convolution\); they have 'other', which this net lacks"
    ):
        convert(net, "fused", weights)
    fused = to_fused(with_random_blobs(net))
    fused.layer[2].blobs.pop()
    with pytest.raises(Invalid, match="layer 'bn1' has 4 blobs: its parameters ask for 5"):
        to_stock(fused)


def test_command(run_tool, tmp_path):
    (tmp_path / "net.prototxt").write_text(FOREIGN)
    (tmp_path / "net.caffemodel").write_bytes(with_random_blobs(parse(FOREIGN)).SerializeToString())
    arguments = ["net.prototxt", "--to", "fused", "--out", "new.prototxt", "--weights", "net.caffemodel"]
    arguments += ["--weights-out", "new.caffemodel"]
    done = run_tool("convert_engine", *arguments)
    assert done.returncode == 0, done.stderr
    assert read_net(tmp_path / "new.prototxt") == to_fused(parse(FOREIGN))
    assert without_blobs(read_weights(tmp_path / "new.caffemodel")) == to_fused(parse(FOREIGN))
    again = run_tool("convert_engine", *arguments)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "new.prototxt is there already" in again.stderr
    (tmp_path / "stock.prototxt").write_text(to_text(to_stock(read_net(tmp_path / "new.prototxt"))))
    mixed = ["stock.prototxt", "--to", "fused", "--out", "x", "--weights", "new.caffemodel", "--weights-out", "y"]
    assert ": convert_engine converts a net and its weights together" in run_tool("convert_engine", *mixed).stderr
    (tmp_path / "empty.caffemodel").touch()
    weights = with_random_blobs(parse(FOREIGN))
    last = [layer for layer in weights.layer if layer.blobs][-1]
    last.ClearField("blobs")
    (tmp_path / "part.caffemodel").write_bytes(weights.SerializeToString())
    for bad, message in (
        (
            ["net.prototxt", "--to", "stock", "--out", "x", "--weights", "part.caffemodel", "--weights-out", "y"],
            f"they have no blobs for layer '{last.name}'",
        ),
        (
            ["net.prototxt", "--to", "stock", "--out", "x", "--weights", "empty.caffemodel", "--weights-out", "y"],
            "they have no blobs for layer",
        ),
        (["none.prototxt", "--to", "stock", "--out", "x"], "cannot read none.prototxt"),
        (["net.caffemodel", "--to", "stock", "--out", "x"], "net.caffemodel is"),
        (["net.prototxt", "--to", "stock", "--out", "x", "--weights", "net.caffemodel"], "go together"),
        (
            ["net.prototxt", "--to", "stock", "--out", "x", "--weights", "net.prototxt", "--weights-out", "y"],
            "no binary",
        ),
        (["net.prototxt", "--to", "metal", "--out", "x"], "invalid choice"),
    ):
        done = run_tool("convert_engine", *bad)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
        assert not (tmp_path / "x").exists()


WIDTHS = {"igcv2": 16, "igcv1": 16, "xception": 12, "igcv2star": 24, "igcv2-I": 18}


@pytest.mark.parametrize("arch", WIDTHS)
def test_training_agrees_between_the_engines(arch, tmp_path):
    """Forward, gradients and solver steps in Caffe from the same converted weights."""
    dataset = make_dataset(tmp_path, 32, 10)
    runs = [
        Experiment(
            arch, Options(width=WIDTHS[arch], depth=8), str(dataset), 4, 4, 8, engine=engine, out=tmp_path / engine
        )
        for engine in ("fused", "stock")
    ]
    for run in runs:
        build(run).write()
    nets = [read_net(run.folder / "train_val.prototxt") for run in runs]
    assert to_stock(nets[0]) == nets[1]
    weights = tmp_path / "fused.caffemodel"
    save = "import caffe, sys; caffe.set_random_seed(3); caffe.get_solver(sys.argv[1]).net.save(sys.argv[2])"
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    subprocess.run([sys.executable, "-c", save, runs[0].folder / "solver.prototxt", weights], check=True, env=quiet)
    converted = tmp_path / "stock.caffemodel"
    converted.write_bytes(convert(nets[0], "stock", read_weights(weights)).SerializeToString())
    arguments = [runs[0].folder / "solver.prototxt", weights, runs[1].folder / "solver.prototxt", converted]
    command = [sys.executable, Path(__file__).with_name("compare_nets.py"), *map(str, arguments)]
    done = subprocess.run(command, check=False, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["start"] == 0
    assert result["common"] > 10 and result["blobs"] < 1e-4
    assert result["gradients"] < 1e-2 and result["moved"] < 1e-3
    assert all(a == pytest.approx(b, rel=1e-3) for a, b in result["losses"])


def test_text_of_both_is_read_back():
    for engine in ("fused", "stock"):
        text = build(Experiment("igcv2star", Options(width=216), engine=engine)).texts["train_val.prototxt"]
        assert to_text(parse(text)) == text
        assert "index: [" in text  # long permutations on one line
        assert "kernel_size: 3" in text
