#!/usr/bin/env python3
"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017) into LMDB, padded from 28x28 gray to 32x32 with three equal channels.

Small, and in Debian (package dataset-fashion-mnist): the set for trying things out where CIFAR is not at hand.
"""

import argparse
import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep.datum import Image
from data_prep.download import DOWNLOADS, download
from data_prep.errors import DataError, run_command
from data_prep.prepare import Dataset, Recipe, Split, add_arguments, is_prepared, prepare
from data_prep.sources import checksums, damage

NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PAGE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SIDE, PAD = 28, 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, NAME, f"folder with the four IDX files, gzipped or not (default: {DEBIAN}, else download)")
    args = parser.parse_args(argv)
    out = args.out or Path("data") / NAME
    source = args.source or (DEBIAN if DEBIAN.is_dir() else None)
    if source is None:
        published = {name: f"md5:{md5}" for name, md5 in FILES.items()}
        if is_prepared(out, Recipe(NAME, PAGE, published, args.seed, args.encoding)):
            return 0
        for name, md5 in FILES.items():
            source = download(f"{PAGE}/{name}", md5, DOWNLOADS / NAME).parent
    files = {name: _find(source, name) for name in FILES}
    sums = {name: digest for path in files.values() for name, digest in checksums(path).items()}
    recipe = Recipe(NAME, str(source), sums, args.seed, args.encoding)
    prepare(out, recipe, lambda _: load(files))
    return 0


@contextmanager
def load(files: dict[str, Path]) -> Iterator[Dataset]:
    """`files`: the four IDX files by their published names."""
    splits = {}
    for split in ("train", "t10k"):
        images = read_idx(files[f"{split}-images-idx3-ubyte.gz"], 3)
        labels = read_idx(files[f"{split}-labels-idx1-ubyte.gz"], 1)
        if images.shape != (len(labels), SIDE, SIDE):
            name = files[f"{split}-images-idx3-ubyte.gz"]
            raise DataError(f"{name}: shape {images.shape}, not ({len(labels)}, {SIDE}, {SIDE})")
        splits[split] = _split(np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD))), labels, split)
    yield Dataset(CLASSES, splits["train"], splits["t10k"])


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of unsigned bytes (magic 0x0000080D, D big-endian sizes, data), gzipped or plain."""
    with damage(str(path)), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        data = file.read()
    header = 4 + 4 * dimensions
    if data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: no IDX file of bytes in {dimensions} dimensions (starts with {data[:4].hex()})")
    shape = np.frombuffer(data[4:header], ">u4").astype(int)
    if len(shape) < dimensions or len(data) - header != np.prod(shape):
        raise DataError(f"{path}: {len(data)} bytes, but its header promises {header + np.prod(shape)}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / name.removesuffix(".gz")):
        if path.is_file():
            return path
    raise DataError(f"{folder / name} is missing (nor is there an unpacked {name.removesuffix('.gz')})")


def _split(images: np.ndarray, labels: np.ndarray, split: str) -> Split:
    def read(index: int) -> Image:
        return Image(np.repeat(images[index][None], 3, axis=0))

    return Split(labels, [f"{split}/{index}" for index in range(len(labels))], read)


if __name__ == "__main__":
    run_command(main)
