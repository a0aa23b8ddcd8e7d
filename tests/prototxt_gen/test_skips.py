"""Skip connections between our layers and plain Caffe's: where a convolution's second top comes from, and leads to."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nets import net_of
from test_engines import parse, with_random_blobs

from prototxt_gen.command_line import Invalid
from prototxt_gen.files import write_files
from prototxt_gen.to_fused import to_fused
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import net_files

HEAD = """
layer { name: "input" type: "Input" top: "data" top: "wanted" input_param { shape { dim: 2 dim: 4 dim: 6 dim: 6 } } }
layer { name: "first" type: "Convolution" bottom: "data" top: "a/in"
  convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "a/norm" type: "BatchNorm" bottom: "a/in" top: "a/in" }
layer { name: "a/scale" type: "Scale" bottom: "a/in" top: "a/in" scale_param { bias_term: true } }
layer { name: "a/add" type: "Eltwise" bottom: "a/in" bottom: "data" top: "a" }
layer { name: "a/relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "shuffle" type: "ChannelPermutation" bottom: "a" top: "shuffle"
  channel_permutation_param { interleave: 2 } }
layer { name: "second" type: "Convolution" bottom: "shuffle" top: "second"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 2 } }
layer { name: "b/norm" type: "BatchNorm" bottom: "second" top: "b/x" }
layer { name: "b/scale" type: "Scale" bottom: "b/x" top: "b/x" scale_param { bias_term: true } }
layer { name: "b/add" type: "Eltwise" bottom: "b/x" bottom: "a" top: "b" }
"""
RELU = 'name: "b/relu" type: "ReLU" bottom: "b" top: "b"'
THIRD = 'name: "third" type: "Convolution" bottom: "b" top: "third" convolution_param { num_output: 4 kernel_size: 1 }'
SIDE = 'name: "side" type: "TanH" bottom: "b" top: "side"'
BOTH = 'name: "both" type: "Eltwise" bottom: "third" bottom: "side" bottom: "b" top: "both"'
LOSS = 'name: "loss" type: "EuclideanLoss" bottom: "both" bottom: "wanted" top: "loss"'


def net(*tail: str, head: str = HEAD) -> str:
    return head + "".join(f"layer {{ {layer} }}\n" for layer in (*tail, LOSS))


NORM_IN_PLACE = """name: "b" type: "FusedBatchNorm" bottom: "second" bottom: "a" top: "second"
  fused_batch_norm_param { relu: true }"""

WITH_SECOND_TOP = {
    "with a ReLU": net(RELU, THIRD, SIDE, BOTH),
    "without a ReLU": net(THIRD, SIDE, BOTH),
    "in place": net(
        NORM_IN_PLACE, *(layer.replace('bottom: "b"', 'bottom: "second"') for layer in (THIRD, SIDE, BOTH)),
        head=HEAD.partition('layer { name: "b/norm"')[0]),
}  # fmt: skip
LEFT_TO_SPLIT = {
    "another layer reads it first": net(RELU, SIDE, THIRD, BOTH),
    "one by a convolution of another shape": net(
        RELU, THIRD.replace("kernel_size: 1", "kernel_h: 1 kernel_w: 3 pad_w: 1"), SIDE, BOTH
    ),
    "the sum belongs to the convolution": net(RELU, THIRD, BOTH.replace('bottom: "side" ', "")),
    "the convolution has no gradient": net(RELU, f"{THIRD} propagate_down: false", SIDE, BOTH),
    "the skip connection has no gradient": net(RELU, THIRD, f"{SIDE} propagate_down: false", BOTH),
    "the result is a loss too": net(f"{RELU} loss_weight: 2", THIRD, SIDE, BOTH),
    "what the convolution makes is a loss too": net(RELU, f"{THIRD} loss_weight: 2", SIDE, BOTH),
    "the convolution is in TRAIN alone": net(
        RELU, f"{THIRD} include {{ phase: TRAIN }}", SIDE, f"{BOTH} include {{ phase: TRAIN }}"
    ),
    "the skip connection is in TRAIN alone": net(
        RELU, THIRD, f"{SIDE} exclude {{ phase: TEST }}", f"{BOTH} exclude {{ phase: TEST }}"
    ),
    "a layer of TEST writes over it": net(
        RELU, THIRD, SIDE, BOTH, 'name: "over" type: "TanH" bottom: "data" top: "b" include { phase: TEST }'),
    "its name is taken": net(RELU, THIRD, SIDE.replace('top: "side"', 'top: "b_skip"'),
                             BOTH.replace('bottom: "side"', 'bottom: "b_skip"')),
    "there is one reader": net(RELU, THIRD, SIDE.replace('bottom: "b"', 'bottom: "third"'),
                               BOTH.replace('bottom: "b"', 'bottom: "third"')),
}  # fmt: skip


def layers(message):
    return {layer.name: layer for layer in message.layer}


def relu_gradient_moved(found, norm: str, convolution: str) -> bool:
    """True if the convolution takes it, False if the batch norm does."""
    taken = found[convolution].fused_group_convolution_param.bottom_relu
    assert found[norm].fused_batch_norm_param.relu_gradient != taken
    return taken


@pytest.mark.parametrize("case", WITH_SECOND_TOP)
def test_the_first_reader_hands_it_on(case):
    """In every net to the sum behind it; then to a layer of another type and a sum, however the result is written."""
    found = layers(to_fused(parse(WITH_SECOND_TOP[case])))
    assert list(found["second"].bottom) == ["a"] and found["second"].top[1] == found["b"].bottom[1] == "a_skip"
    assert relu_gradient_moved(found, "a", "second")
    assert (list(found["a"].bottom), list(found["a"].top)) == (["first", "data"], ["a"])  # not in place
    assert found["b"].bottom[0] == ("b/in" if case == "in place" else "second")

    blob = "second" if case == "in place" else "b"
    assert list(found["third"].bottom) == [blob] and list(found["third"].top) == ["third", f"{blob}_skip"]
    assert list(found["side"].bottom) == [f"{blob}_skip"]
    assert list(found["both"].bottom) == ["third", "side", f"{blob}_skip"]
    assert relu_gradient_moved(found, "b", "third") == (case != "without a ReLU")


@pytest.mark.parametrize("case", LEFT_TO_SPLIT)
def test_what_is_left_to_caffe(case):
    stock = parse(LEFT_TO_SPLIT[case])
    found = layers(to_fused(stock))
    assert list(found["b"].top) == ["b"] and list(found["third"].top[1:]) == []
    assert not relu_gradient_moved(found, "b", "third")
    for layer in stock.layer:
        if layer.type in ("TanH", "Eltwise") and layer.name in found:
            assert layer == found[layer.name]


def test_with_one_reader_the_batch_norm_is_in_place_again():
    """to_stock calls the input of a sum in place X/in."""
    text = LEFT_TO_SPLIT["there is one reader"].replace('"second"', '"b/in"').replace('"b/x"', '"b/in"')
    text = text.replace('name: "b/in"', 'name: "second"')
    found = layers(to_fused(parse(text)))
    assert list(found["b"].bottom) == ["b", "a_skip"] and list(found["b"].top) == ["b"]


@pytest.mark.parametrize("case", WITH_SECOND_TOP)
def test_there_and_back(case):
    fused = to_fused(with_random_blobs(parse(WITH_SECOND_TOP[case])))
    stock = to_stock(fused)
    assert not {"second_skip", "a_skip", "b_skip"} & {blob for layer in stock.layer for blob in layer.bottom}
    assert to_fused(stock) == fused


def test_what_is_summed_is_scaled_in_place_in_plain_layers():
    """X/in, wherever the fused layer has its result: a blob of either net has one blob of the other with its values."""
    for unit in ("stage1_block2", "stage3_block6"):  # not in place in fused layers, and in place
        stock = layers(net_of(engine="stock"))
        for part in ("norm", "scale"):
            layer = stock[f"{unit}_bn/{part}"]
            assert list(layer.bottom) == list(layer.top) == [f"{unit}_bn/in"]
        top = f"{unit}_bn" if unit == "stage1_block2" else unit
        assert stock[f"{unit}_bn/add"].bottom[0] == f"{unit}_bn/in" and list(stock[f"{unit}_bn/relu"].top) == [top]


def test_a_bottom_that_is_overwritten_has_no_plain_form():
    fused = to_fused(parse(WITH_SECOND_TOP["with a ReLU"]))
    fused.layer.add(name="over", type="TanH", bottom=["both"], top=["b"])
    with pytest.raises(Invalid, match="layer 'third' has a second top, and a later layer writes over its bottom, 'b'"):
        to_stock(fused)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    """By net and "stock", "fused" or "back" (stock again): its loss and all parameters' gradients, in Caffe."""
    folder, models = tmp_path_factory.mktemp("gradients"), {}
    for case, text in (WITH_SECOND_TOP | LEFT_TO_SPLIT).items():
        stock = with_random_blobs(parse(text))
        fused = to_fused(stock)
        for form, model in (("stock", stock), ("fused", fused), ("back", to_stock(fused))):
            path = models[case, form] = folder / f"{len(models)}"
            write_files(net_files(model, path.with_suffix(".prototxt"), path.with_suffix(".caffemodel")))
    command = [sys.executable, Path(__file__).with_name("net_gradients.py"), folder / "out.npz", *models.values()]
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(folder / "out.npz")
    return {key: found[path.name] for key, path in models.items()}


@pytest.mark.parametrize("case", WITH_SECOND_TOP | LEFT_TO_SPLIT)
def test_gradients_are_the_same(case, gradients):
    expected = gradients[case, "stock"]
    assert np.count_nonzero(expected) > 0.5 * expected.size
    for form in ("fused", "back"):
        np.testing.assert_allclose(gradients[case, form], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
