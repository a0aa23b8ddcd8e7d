"""The complete CIFAR-10 and CIFAR-100, rebuilt from the shared mosaics, against the original files."""

import json
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT, read_split

# As published and used by IGC-V1 (RGB, 0-255, three decimals)
PUBLISHED = {
    "cifar10": ([125.307, 122.950, 113.865], [62.993, 62.089, 66.705]),
    "cifar100": ([129.304, 124.070, 112.434], [68.170, 65.392, 70.418]),
}


@pytest.fixture(scope="session")
def originals(shared, tmp_path_factory):
    """The original files (unpack_cifar.py checks their published checksums), and the python version's names."""
    folder = tmp_path_factory.mktemp("originals")
    command = [sys.executable, str(shared / "unpack_cifar.py"), str(shared), str(folder), "--py"]
    subprocess.run(command, check=True, capture_output=True)
    names = (folder / "cifar-10-batches-bin/batches.meta.txt").read_text().split()
    write_names(folder / "cifar-10-batches-py/batches.meta", {"label_names": names})
    kinds = {
        f"{kind}_label_names": (folder / f"cifar-100-binary/{kind}_label_names.txt") for kind in ("fine", "coarse")
    }
    write_names(folder / "cifar-100-python/meta", {key: file.read_text().split() for key, file in kinds.items()})
    return folder


def write_names(path, names: dict[str, list[str]]):
    """A pickle of lists of Python 2 strings, in opcodes."""

    def string(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    lists = (string(key) + b"](" + b"".join(map(string, values)) + b"e" for key, values in names.items())
    path.write_bytes(b"\x80\x02}(" + b"".join(lists) + b"u.")


@pytest.mark.parametrize(
    ("dataset", "folder", "options"),
    [
        ("cifar10", "cifar-10-batches-bin", []),
        ("cifar10", "cifar-10-batches-py", []),
        ("cifar100", "cifar-100-binary", []),
        ("cifar100", "cifar-100-python", ["--labels", "coarse"]),
    ],
)
def test_every_pixel_and_label(originals, tmp_path, dataset, folder, options):
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "data_prep/cifar.py"), "--dataset", dataset, "--out", str(out), *options]
    subprocess.run([*command, "--source", str(originals / folder)], check=True, capture_output=True)
    coarse = "coarse" in options
    for split, count in (("train", 50_000), ("test", 10_000)):
        original, labels = read_binary(originals, dataset, split, coarse)
        names, pixels, found = read_split(out / f"{split}_lmdb")
        index = np.array([int(name.removeprefix(f"{split}/")) for name in names])
        assert np.array_equal(np.sort(index), np.arange(count))
        assert np.array_equal(found, labels[index])
        assert np.array_equal(pixels[:, ::-1], original[index])
        assert len(np.unique(np.bincount(found))) == 1
    description = json.loads((out / "dataset.json").read_text())
    assert description["num_classes"] == {"cifar10": 10, "cifar100": 20 if coarse else 100}[dataset]
    mean, std = PUBLISHED[dataset]
    np.testing.assert_allclose(description["mean"][::-1], mean, atol=6e-4)
    np.testing.assert_allclose(description["std"][::-1], std, atol=6e-4)


def read_binary(originals, dataset, split, coarse):
    """(pixels (n, 3, 32, 32) RGB, labels (n,)) straight from the .bin files."""
    if dataset == "cifar10":
        batches = [f"data_batch_{batch}.bin" for batch in range(1, 6)] if split == "train" else ["test_batch.bin"]
        files = [originals / "cifar-10-batches-bin" / batch for batch in batches]
        labels, column = 1, 0
    else:
        files = [originals / "cifar-100-binary" / f"{split}.bin"]
        labels, column = 2, 0 if coarse else 1
    records = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3072 + labels) for file in files])
    return records[:, labels:].reshape(-1, 3, 32, 32), records[:, column]
