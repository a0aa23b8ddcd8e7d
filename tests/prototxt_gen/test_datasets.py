"""What the generators take from a data set: the data layers, and folders made by data_prep, good and bad."""

import json
from pathlib import Path

import pytest
from nets import net_of

from prototxt_gen.command_line import Invalid
from prototxt_gen.datasets import BUILT_IN
from prototxt_gen.proto import pb


def test_data_layers():
    """Section 4.1: pad 4 and crop 32, or scale to 64 ... 80 and crop 64; mirror; means and deviations in BGR."""
    for name, dataset in BUILT_IN.items():
        train, test = net_of(dataset=name, seed=5).layer[:2]
        a, b = train.augmented_data_param, test.augmented_data_param
        assert (train.include[0].phase, test.include[0].phase) == (pb.TRAIN, pb.TEST)
        assert (a.batch_size, b.batch_size, a.seed, a.mirror, b.mirror) == (64, 100, 5, dataset.augmented, False)
        assert a.crop_size == b.crop_size == (64 if name == "tiny-imagenet" else 32)
        scaled = {"tiny-imagenet": (0, 64, 80), "fashion-mnist": (0, 0, 0)}.get(name, (4, 0, 0))
        assert (a.pad, a.min_scale, a.max_scale) == scaled and (b.pad, b.min_scale, b.max_scale) == (0, 0, 0)
        assert list(a.mean) == list(b.mean) == pytest.approx(dataset.mean)
        assert list(a.std) == list(b.std) == pytest.approx(dataset.std)
        assert a.pad_mode == pb.AugmentedDataParameter.NORMALIZED_ZERO
    assert [d.name for d in BUILT_IN.values() if not d.augmented] == ["fashion-mnist"]
    assert BUILT_IN["cifar10"].mean == (113.865, 122.950, 125.307)
    assert BUILT_IN["tiny-imagenet"].std == pytest.approx([255 * x for x in (0.2816, 0.2689, 0.2764)], abs=1e-3)


def test_fashion_mnist_constants():
    images = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
    if not images.exists():
        pytest.skip(f"{images} is not installed")
    import gzip

    import numpy as np

    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2))).astype(np.float64)
    dataset = BUILT_IN["fashion-mnist"]
    assert dataset.train == len(pixels)
    assert dataset.mean == pytest.approx([padded.mean()] * 3, abs=1e-3)
    assert dataset.std == pytest.approx([padded.std()] * 3, abs=1e-3)


def test_a_folder_of_data_prep(tmp_path):
    facts = {"name": "flowers", "num_classes": 17, "train": {"records": 1000}, "test": {"records": 340},
             "image": {"channels": 1, "height": 48, "width": 48}, "mean": [99.5], "std": [50.25]}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    net = net_of(dataset=str(tmp_path))
    param = net.layer[0].augmented_data_param
    assert (param.source, param.crop_size, param.min_scale, param.max_scale) == (f"{tmp_path}/train_lmdb", 48, 48, 60)
    assert list(param.mean) == [99.5] and list(param.std) == [50.25]
    assert next(layer for layer in net.layer if layer.name == "fc").inner_product_param.num_output == 17
    deploy = net_of(name="deploy.prototxt", dataset=str(tmp_path))
    assert list(deploy.layer[0].input_param.shape[0].dim) == [1, 1, 48, 48]
    for change, message in (
        ({"image": {"channels": 1, "height": 48, "width": 40}}, "images of 48 x 40: square"),
        ({"image": 3}, "image.channels is None instead of a number"),
        ({"num_classes": "ten"}, "num_classes is 'ten' instead of a number from 1 on"),
        ({"train": {"records": 0}}, "train.records is 0"),
        ({"test": {}}, "test.records is None"),
        ({"name": None}, "name is None"),
        ({"mean": None}, "mean is None instead of a number from 0 to 255 for each channel"),
        ({"mean": [1.0, 2.0]}, r"mean is \[1.0, 2.0\]"),
        ({"mean": [float("nan")]}, r"mean is \[nan\]"),
        ({"std": [0.0]}, r"std is \[0.0\] instead of a number from 1e-06"),
        ({"std": ["1"]}, r"std is \['1'\]"),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(Invalid, match=f"^{tmp_path}/dataset.json: {message}"):
            net_of(dataset=str(tmp_path))
    for content, message in ((b"[]", "num_classes is None"), (b"\xff", "is no JSON"), (b"{", "is no JSON")):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(Invalid, match=message):
            net_of(dataset=str(tmp_path))


def test_flops_of_a_block_are_those_of_the_images(run_tool, tmp_path):
    """Table 2's counts are of maps of 32 x 32; here of 28 x 28."""
    facts = {"name": "small", "num_classes": 10, "train": {"records": 1000}, "test": {"records": 1009},
             "image": {"channels": 1, "height": 28, "width": 28}, "mean": [99.5], "std": [50.25]}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    done = run_tool(
        "make_net", "--arch", "igcv2-II", "--depth", 8, "--width", 144, "--dataset", tmp_path, "--summary-only"
    )
    assert f"here 4,752 and {4752 * 28 * 28:,}" in done.stdout, done
    assert "tests will be slow: no batch from 20 to 500 divides the 1,009 test images" in done.stdout
