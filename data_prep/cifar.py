#!/usr/bin/env python3
"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) into LMDB, from the binary or the python version.

Both versions give the same records. The name in a record's key is the image's original place: train/0 is the first of
data_batch_1 (CIFAR-10) or of train (CIFAR-100).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep.cifar_files import KINDS, LAYOUTS, PIXELS, Layout, class_names, read_images
from data_prep.datum import Image
from data_prep.download import download
from data_prep.errors import DataError, run_command
from data_prep.prepare import Dataset, Recipe, Split, add_arguments, is_prepared, prepare
from data_prep.sources import Source, checksums, open_source

PAGE = "https://www.cs.toronto.edu/~kriz"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(LAYOUTS), required=True)
    parser.add_argument("--labels", choices=("fine", "coarse"), help="of CIFAR-100: 100 classes (default) or 20")
    parser.add_argument("--no-checksum", action="store_true", help="accept files that differ from the published ones")
    add_arguments(
        parser, "DATASET", "original archive or unpacked folder, binary or python version (default: download)"
    )
    args = parser.parse_args(argv)
    if args.labels and args.dataset == "cifar10":
        parser.error("--labels is for cifar100: CIFAR-10 has one kind of label")
    kind = "" if args.dataset == "cifar10" else f"{args.labels or 'fine'}_"
    name = args.dataset + ("-coarse" if kind == "coarse_" else "")
    out = args.out or Path("data") / name
    published = LAYOUTS[args.dataset][0]
    url = f"{PAGE}/{published.archive}"
    source = args.source
    if source is None:
        if is_prepared(out, Recipe(name, url, {published.archive: f"md5:{published.md5}"}, args.seed, args.encoding)):
            return 0
        source = download(url, published.md5)
    recipe = Recipe(name, str(args.source or url), checksums(source), args.seed, args.encoding)
    prepare(out, recipe, lambda scratch: load(source, args.dataset, kind, scratch, verify=not args.no_checksum))
    return 0


@contextmanager
def load(path: Path, dataset: str, kind: str, scratch: Path, verify: bool) -> Iterator[Dataset]:
    """Opens an archive or folder. Pixels go through a nameless file in `scratch`, so memory holds a batch at most."""
    with open_source(path, scratch) as source, tempfile.TemporaryFile(dir=scratch, buffering=0) as pixels:
        layout, prefix = _find_layout(source, dataset)
        classes = class_names(source, prefix, layout, kind, KINDS[dataset][kind])

        def store(files: tuple[str, ...]) -> np.ndarray:
            """Appends the images to `pixels`, planar BGR as in a Datum; returns their labels."""
            labels = []
            for file in files:
                for images, image_labels in read_images(source, prefix, layout, file, kind, verify):
                    pixels.write(np.ascontiguousarray(images[:, ::-1]))
                    labels.append(image_labels.copy())  # a view would keep the pixels in memory
            return np.concatenate(labels)

        train, test = store(layout.train), store(layout.test)
        yield Dataset(classes, _split(pixels, train, 0, "train"), _split(pixels, test, len(train), "test"))


def _find_layout(source: Source, dataset: str) -> tuple[Layout, str]:
    for layout in LAYOUTS[dataset]:
        prefix = source.locate(layout.train[0])
        if prefix is not None:
            return layout, prefix
    wanted = " nor ".join(layout.train[0] for layout in LAYOUTS[dataset])
    raise DataError(f"{source.path} holds no {dataset}: neither {wanted} is in it or in a folder of it")


def _split(pixels, labels: np.ndarray, first: int, split: str) -> Split:
    def read(index: int) -> Image:
        data = os.pread(pixels.fileno(), PIXELS, (first + int(index)) * PIXELS)
        return Image(np.frombuffer(data, np.uint8).reshape(3, 32, 32))

    return Split(labels, [f"{split}/{index}" for index in range(len(labels))], read)


if __name__ == "__main__":
    run_command(main)
