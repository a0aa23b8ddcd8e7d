"""Fashion-MNIST against small IDX files made here, and against Debian's complete copy."""

import gzip
import json
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, fails, read_split

from data_prep import fashion_mnist

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """The four files, the labels gzipped and the images not, with 40 and 20 random images."""
    rng = np.random.default_rng(5)
    source = tmp_path / "idx"
    source.mkdir()
    for count, split in ((40, "train"), (20, "t10k")):
        (source / f"{split}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)))
        labels = gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10))
        (source / f"{split}-labels-idx1-ubyte.gz").write_bytes(labels)
    return source


def test_pixels_labels_and_order(folder, tmp_path):
    out = tmp_path / "out"
    assert fashion_mnist.main(["--source", str(folder), "--out", str(out), "--seed", "3"]) == 0
    originals = np.frombuffer((folder / FILES[0]).read_bytes()[16:], np.uint8).reshape(40, 28, 28)
    names, pixels, labels = read_split(out / "train_lmdb")
    index = np.array([int(name.removeprefix("train/")) for name in names])
    assert sorted(index) == list(range(40)) and not np.array_equal(index, range(40))
    assert np.array_equal(index, np.random.default_rng([3, 0]).permutation(40))
    assert np.array_equal(labels, index % 10)
    for channel in range(3):
        assert np.array_equal(pixels[:, channel, 2:30, 2:30], originals[index])
    assert pixels.sum() == 3 * originals[index].sum()  # the padding is zero
    description = json.loads((out / "dataset.json").read_text())
    assert description["train"] == {"records": 40, "per_class": [4] * 10}
    np.testing.assert_allclose(description["mean"], pixels.mean((0, 2, 3)))
    np.testing.assert_allclose(description["std"], pixels.std((0, 2, 3)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (FILES[0], b"\0\0\x08\x03", "header promises"),
        (FILES[0], b"GIF89a", "no IDX file of bytes in 3 dimensions"),
        (FILES[0], idx(np.zeros((40, 20, 20), np.uint8)), r"shape \(40, 20, 20\), not \(40, 28, 28\)"),
        (FILES[1] + ".gz", gzip.compress(idx(np.zeros(40, np.uint8)))[:-9], "truncated or damaged"),
        (FILES[1] + ".gz", gzip.compress(idx(np.full(40, 11, np.uint8))), "label 11, but labels are 0 to 9"),
        (
            FILES[1] + ".gz",
            gzip.compress(idx(np.zeros(40, np.uint8))),
            "train images lack 9 of 10 classes, first 'Trouser'",
        ),
        (FILES[2], None, "is missing"),
    ],
)
def test_bad_input_is_one_clear_message(folder, tmp_path, capfd, name, content, message):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    out = tmp_path / "data" / "out"
    error = fails(capfd, fashion_mnist.main, "--source", folder, "--out", out)
    assert re.search(message, error)
    assert not out.exists() and not list(tmp_path.glob("data/.*"))


@pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_complete_set(tmp_path):
    """Counts and mean as published (0.2860 of 28x28, std 0.3530), here on the padded image."""
    command = [sys.executable, str(ROOT / "data_prep/fashion_mnist.py"), "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    description = json.loads((tmp_path / "out/dataset.json").read_text())
    assert description["train"]["per_class"] == [6000] * 10 and description["test"]["per_class"] == [1000] * 10
    shrink = 28 * 28 / (32 * 32)
    mean, std = np.array(description["mean"]) / 255 / shrink, np.array(description["std"]) / 255
    np.testing.assert_allclose(mean, 0.2860, atol=5e-5)
    np.testing.assert_allclose(std**2, (0.3530**2 + 0.2860**2) * shrink - (0.2860 * shrink) ** 2, atol=1e-4)
    assert "already prepared" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
