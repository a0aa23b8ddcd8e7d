"""What else people load a snapshot of a net with AugmentedData into."""

import re
import subprocess

import numpy as np
import pytest

DATA = """layer {{ name: "{name}" type: "AugmentedData" top: "data" top: "label"
  augmented_data_param {{ source: "{source}" batch_size: 8 }} }}
"""
INPUT = 'layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
CLASSIFIER = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'


@pytest.fixture
def source(tmp_path, write_lmdb):
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8))
    return write_lmdb(tmp_path / "lmdb", images, np.arange(30) % 10)


@pytest.fixture
def net(tmp_path):
    import caffe

    def make(text: str, *weights: str):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return caffe.Net(str(path), *weights, caffe.TRAIN)

    return make


def test_deploy_net_with_an_input_layer_of_another_name(tmp_path, net, source):
    trained = net(DATA.format(name="data", source=source) + CLASSIFIER + LOSS)
    trained.forward()
    trained.save(str(tmp_path / "w.caffemodel"))
    deployed = net(INPUT + CLASSIFIER, str(tmp_path / "w.caffemodel"))
    deployed.blobs["data"].data[...] = trained.blobs["data"].data[:1]
    np.testing.assert_allclose(deployed.forward()["ip"][0], trained.blobs["ip"].data[0], rtol=1e-4)


@pytest.mark.parametrize(("name", "drawn"), [("data", 16), ("fine-tuning data", 0)])
def test_fine_tuning_goes_on_in_the_data_unless_the_layer_is_renamed(tmp_path, net, source, name, drawn):
    trained = net(DATA.format(name="data", source=source) + CLASSIFIER + LOSS)
    trained.forward()
    trained.forward()
    trained.save(str(tmp_path / "w.caffemodel"))
    tuned = net(DATA.format(name=name, source=source) + CLASSIFIER + LOSS, str(tmp_path / "w.caffemodel"))
    assert tuned.params[name][0].data.tolist() == [drawn, 0]


def test_caffe_test_and_caffe_time(tmp_path, net, source, caffe_command):
    trained = net(DATA.format(name="data", source=source) + CLASSIFIER + LOSS)
    trained.save(str(tmp_path / "w.caffemodel"))
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.caffemodel"
    for arguments in (["test", f"--weights={weights}"], ["time"]):
        command = [caffe_command, *arguments, f"--model={model}", "--iterations=5"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert re.search(r"data\s+forward: [\d.]+ ms", done.stderr)
