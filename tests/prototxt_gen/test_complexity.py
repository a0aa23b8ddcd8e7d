"""The counter on nets whose counts are known."""

import json
import re

import pytest
from google.protobuf import text_format

from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import count_net
from prototxt_gen.proto import pb

INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: %d dim: %d dim: %d } } }\n'


def count(text, **options):
    return count_net(text_format.Parse(text, pb.NetParameter()), **options)


def one_layer(kind, parameters="", shape=(6, 8, 8), tops=("top",)):
    """Count of a single layer on a batch of 2."""
    names = " ".join(f'top: "{top}"' for top in tops)
    counts = count(INPUT % shape + f'layer {{ name: "x" type: "{kind}" bottom: "data" {names} {parameters} }}')
    return counts.layers[1]


# LeNet as Caffe's examples have it: the counts are worked out by hand.
LENET = (
    INPUT % (1, 28, 28)
    + """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 50 kernel_size: 5 } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param { num_output: 500 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 } }
"""
)


def test_lenet():
    counts = count(LENET)
    assert [layer.tops[0][1:] for layer in counts.layers] == [
        (1, 28, 28), (20, 24, 24), (20, 12, 12), (50, 8, 8), (50, 4, 4), (500,), (500,), (10,)]  # fmt: skip
    assert counts.params == 20 * 25 + 50 * 20 * 25
    assert counts.flops == 500 * 24 * 24 + 25000 * 8 * 8
    assert counts.total("learned") == counts.total("values") == 431_080
    assert counts.total("multiply_adds") == counts.flops + 800 * 500 + 500 * 10


@pytest.mark.parametrize("kind,parameters,top,blobs,multiply_adds", [
    ("Convolution", "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 group: 2 }", (4, 4, 4),
     [(4, 3, 3, 3), (4,)], 4 * 27 * 16),
    ("Convolution", "convolution_param { num_output: 4 kernel_h: 1 kernel_w: 3 pad_w: 1 bias_term: false }", (4, 8, 8),
     [(4, 6, 1, 3)], 4 * 18 * 64),
    ("Convolution", "convolution_param { num_output: 4 kernel_size: 3 dilation: 2 }", (4, 4, 4), [(4, 6, 3, 3), (4,)],
     4 * 54 * 16),
    ("Deconvolution", "convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 2 }", (4, 16, 16),
     [(6, 2, 4, 4), (4,)], 6 * 2 * 16 * 64),
    ("FusedGroupConvolution",
     """fused_group_convolution_param {
     stage { num_output: 6 group: 6 kernel_size: 3 stride: 2 pad: 1 bias_term: false }
     stage { num_output: 12 group: 3 } }""", (12, 4, 4), [(6, 1, 3, 3), (12, 2, 1, 1), (12,)], 16 * (54 + 24)),
    ("InnerProduct", "inner_product_param { num_output: 3 transpose: true }", (3,), [(384, 3), (3,)], 3 * 384),
    ("InnerProduct", "inner_product_param { num_output: 3 axis: 2 }", (6, 3), [(3, 64), (3,)], 6 * 3 * 64),
    ("Pooling", "pooling_param { kernel_size: 3 stride: 2 }", (6, 4, 4), [], 0),  # ceil
    ("Pooling", "pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }", (6, 3, 3), [], 0),
    ("Pooling", "pooling_param { kernel_size: 2 stride: 2 pad: 1 }", (6, 5, 5), [], 0),
    ("Pooling", "pooling_param { kernel_h: 2 kernel_w: 1 stride: 3 pad_h: 1 pad_w: 0 }", (6, 3, 3), [], 0),
    ("Pooling", "pooling_param { global_pooling: true }", (6, 1, 1), [], 0),
    ("Reduction", "reduction_param { axis: -1 }", (6, 8), [], 0),
    ("Reduction", "reduction_param { axis: 2 }", (6,), [], 0),
    ("BatchNorm", "", (6, 8, 8), [(6,), (6,), (1,)], 384),
    ("FusedBatchNorm", "", (6, 8, 8), [(6,), (6,), (1,), (6,), (6,)], 768),
    ("Scale", "scale_param { bias_term: true }", (6, 8, 8), [(6,), (6,)], 384),
    ("PReLU", "prelu_param { channel_shared: true }", (6, 8, 8), [()], 384),
    ("Bias", "", (6, 8, 8), [(6,)], 0),
    ("ChannelPermutation", "channel_permutation_param { interleave: 3 }", (6, 8, 8), [], 0),
    ("Flatten", "", (384,), [], 0),
    ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 4 } }", (96, 4), [], 0),
    ("Tile", "tile_param { axis: 1 tiles: 2 }", (12, 8, 8), [], 0),
    ("LRN", "", (6, 8, 8), [], 0),
])  # fmt: skip
def test_layers(kind, parameters, top, blobs, multiply_adds):
    layer = one_layer(kind, parameters)
    assert layer.tops[0] == (2, *top)
    assert layer.blobs == blobs and layer.multiply_adds == multiply_adds


def test_statistics_are_not_learned():
    assert one_layer("BatchNorm").learned == 0
    assert one_layer("FusedBatchNorm").learned == 12


def test_second_tops():
    """A convolution's is its input; a batch norm has none."""
    stage = "fused_group_convolution_param { stage { num_output: 3 kernel_size: 3 stride: 2 pad: 1 } }"
    assert one_layer("FusedGroupConvolution", stage, tops=("y", "x_again")).tops == [(2, 3, 4, 4), (2, 6, 8, 8)]
    for kind, tops, most in (("FusedGroupConvolution", "abc", 2), ("FusedBatchNorm", "ab", 1)):
        with pytest.raises(Invalid, match=rf"layer 'x' \({kind}\) has {most + 1} tops, expected {most}"):
            one_layer(kind, stage, tops=tops)


def test_slices_and_concatenation():
    assert one_layer("Slice", "slice_param { slice_point: 2 }", tops=("a", "b")).tops == [(2, 2, 8, 8), (2, 4, 8, 8)]
    assert one_layer("Split", tops=("a", "b")).tops == [(2, 6, 8, 8)] * 2
    both = INPUT % (6, 8, 8) + 'layer { name: "x" type: "Concat" bottom: "data" bottom: "data" top: "x" }'
    assert count(both).layers[1].tops == [(2, 12, 8, 8)]


def test_phases_inputs_and_sharing():
    text = """
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
      data_param { batch_size: 4 } transform_param { crop_size: 16 mean_value: 1 mean_value: 2 mean_value: 3 } }
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } data_param { batch_size: 5 } }
    layer { name: "c1" type: "Convolution" bottom: "data" top: "c1" param { name: "w" }
      convolution_param { num_output: 3 kernel_size: 1 bias_term: false } }
    layer { name: "c2" type: "Convolution" bottom: "c1" top: "c2" param { name: "w" } exclude { phase: TEST }
      convolution_param { num_output: 3 kernel_size: 1 bias_term: false } }
    """
    train = count(text, phase="TRAIN")
    assert train.layers[0].tops == [(4, 3, 16, 16), (4,)]
    assert train.total("values") == 9 and train.params == 9 and train.flops == 18 * 256
    with pytest.raises(Invalid, match=r"layer 'd' \(Data\) is not in the prototxt: give --input"):
        count(text, phase="TEST")
    test = count(text, phase="TEST", image=(3, 8, 8))
    assert test.layers[0].tops[0] == (5, 3, 8, 8) and [layer.name for layer in test.layers] == ["d", "c1"]
    old = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4 '
    assert count(old + 'layer { name: "p" type: "ReLU" bottom: "data" top: "p" }').layers[0].tops == [(1, 3, 4, 4)]


@pytest.mark.parametrize("layer,top", [
    ('type: "Data" transform_param { crop_size: 16 mean_value: 1 }', None),
    ('type: "AugmentedData" augmented_data_param { batch_size: 4 crop_size: 16 mean: 1 }', None),
    ('type: "AugmentedData" augmented_data_param { batch_size: 4 crop_size: 16 mean: 1 mean: 2 }', (4, 2, 16, 16)),
    ('type: "ImageData" image_data_param { batch_size: 4 new_height: 8 new_width: 6 }', (4, 3, 8, 6)),
    ('type: "ImageData" image_data_param { batch_size: 4 new_height: 8 }', None),
    ('type: "ImageData" image_data_param { batch_size: 4 new_height: 8 new_width: 6 is_color: false } '
     'transform_param { crop_size: 5 }', (4, 1, 5, 5)),
])  # fmt: skip
def test_what_data_layers_tell_of_their_images(layer, top):
    """One mean may be for all channels."""
    text = f'layer {{ name: "d" top: "data" {layer} }}'
    if top:
        assert count(text).layers[0].tops == [top]
    else:
        with pytest.raises(Invalid, match="is not in the prototxt: give --input"):
            count(text)


def test_weights_shared_by_name_count_once():
    """Stage by stage: the second layer has its biases to itself, and its second weight."""
    stages = "fused_group_convolution_param { stage { num_output: 6 group: 3 } stage { num_output: 6 group: 2 } }"
    layers = [
        f'layer {{ name: "{name}" type: "FusedGroupConvolution" bottom: "data" top: "{name}" '
        f'param {{ name: "w" }} {stages} }}'
        for name in ("a", "b")
    ]
    counts = count(INPUT % (6, 8, 8) + "".join(layers))
    assert [layer.convolution_weights for layer in counts.layers] == [0, 6 * 2 + 6 * 3, 6 * 3]
    assert [layer.learned for layer in counts.layers] == [0, 6 * 2 + 6 * 3 + 12, 6 * 3 + 12]
    assert counts.flops == 2 * (6 * 2 + 6 * 3) * 64


@pytest.mark.parametrize("text,message", [
    ('layer { name: "x" type: "Convolutoin" bottom: "data" top: "x" }',
     "unknown type of layer 'x' 'Convolutoin': did you mean"),
    ('layer { name: "x" type: "ReLU" bottom: "dta" top: "x" }',
     "layer 'x' reads blob 'dta', which no layer before it writes"),
    ('layer { name: "x" type: "Convolution" bottom: "data" top: "x" '
     'convolution_param { num_output: 4 kernel_size: 3 group: 4 } }',
     "layer 'x': 4 groups do not divide 6 input"),
    ('layer { name: "x" type: "Convolution" bottom: "data" top: "x" '
     'convolution_param { num_output: 4 kernel_size: 11 } }',
     "layer 'x': a kernel of 11x11 leaves nothing"),
    ('layer { name: "x" type: "Convolution" bottom: "data" top: "x" }', "layer 'x' has no num_output"),
    ('layer { name: "x" type: "Convolution" bottom: "data" top: "x" convolution_param { num_output: 4 } }',
     "layer 'x' has no kernel_size"),
    ('layer { name: "x" type: "Convolution" bottom: "data" top: "x" '
     'convolution_param { num_output: 4 kernel_size: 1 kernel_size: 1 kernel_size: 1 } }',
     "layer 'x' has 3 values of kernel_size: give one, or one for each of 2 axes"),
    ('layer { name: "f" type: "Flatten" bottom: "data" top: "f" } layer { name: "x" type: "Convolution" bottom: "f" '
     'top: "x" convolution_param { num_output: 4 kernel_size: 1 } }',
     "layer 'x' (Convolution) has a bottom without spatial axes"),
])  # fmt: skip
def test_errors_name_the_layer(text, message):
    with pytest.raises(Invalid, match=re.escape(message)):
        count(INPUT % (6, 8, 8) + text)


def test_command(run_tool, tmp_path):
    path = tmp_path / "lenet.prototxt"
    path.write_text(LENET)
    done = run_tool("complexity", path)
    assert done.returncode == 0 and "#Params 25,500" in done.stdout and "431,080 learned" in done.stdout
    found = json.loads(run_tool("complexity", path, "--json").stdout)
    assert found["params"] == 25_500 and found["learned"] == 431_080 and len(found["layers"]) == 8
    for content, message in (("layer { nam: 1 }", "is no net in prototxt: line"),
                             ("layers { name: 'x' }", "upgrade_net_proto_text"), (None, "cannot read")):  # fmt: skip
        path.unlink()
        if content:
            path.write_text(content)
        else:
            path = tmp_path / "none.prototxt"
        done = run_tool("complexity", path)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
