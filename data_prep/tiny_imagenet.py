#!/usr/bin/env python3
"""Tiny ImageNet (Stanford CS231N, 2015) into LMDB: train/, and val/ as the test set.

Labels follow the order of wnids.txt. Grayscale files become three equal channels. The name in a record's key is the
image's path in the distribution.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep.download import download
from data_prep.errors import DataError, run_command
from data_prep.prepare import Dataset, Recipe, Split, add_arguments, add_size_argument, file_split, is_prepared, prepare
from data_prep.sources import Source, checksums, open_source

NAME = "tiny-imagenet"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
SIDE = 64


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, NAME, "original archive (.zip, .tar, .tar.xz, ...) or unpacked folder (default: download)")
    add_size_argument(parser, f"{SIDE}x{SIDE} as they are")
    args = parser.parse_args(argv)
    out = args.out or Path("data") / NAME
    options = {"size": args.size or SIDE}
    source = args.source
    if source is None:
        published = {Path(URL).name: f"md5:{MD5}"}
        if is_prepared(out, Recipe(NAME, URL, published, args.seed, args.encoding, options)):
            return 0
        source = download(URL, MD5)
    recipe = Recipe(NAME, str(args.source or URL), checksums(source), args.seed, args.encoding, options)
    prepare(out, recipe, lambda scratch: load(source, scratch, args.size))
    return 0


@contextmanager
def load(path: Path, scratch: Path, size: int | None) -> Iterator[Dataset]:
    """Opens an archive or folder; images are read one by one when the splits ask for them."""
    with open_source(path, scratch) as source:
        prefix = source.locate("wnids.txt")
        if prefix is None:
            raise DataError(f"{path} holds no Tiny ImageNet: wnids.txt is neither in it nor in a folder of it")
        wnids = [wnid for line in source.lines(f"{prefix}wnids.txt") for wnid in line.split()]
        words = _words(source, f"{prefix}words.txt")
        train, test = _train(source, prefix, wnids, size), _validation(source, prefix, wnids, size)
        yield Dataset(wnids, train, test, {"words": [words.get(wnid, wnid) for wnid in wnids]})


def _words(source: Source, name: str) -> dict[str, str]:
    """{wnid: what it means}"""
    lines = [line for line in source.lines(name) if line]
    if wrong := next((line for line in lines if "\t" not in line), None):
        raise DataError(f"{source.where(name)}: '{wrong}' is no class, tab and words")
    return dict(line.split("\t", 1) for line in lines)


def _train(source: Source, prefix: str, wnids: list[str], size: int | None) -> Split:
    paths, labels = [], []
    for label, wnid in enumerate(wnids):
        folder = f"train/{wnid}/images"
        files = source.files(prefix + folder)
        if not files:
            raise DataError(f"{source.where(prefix + folder)}: no images of this class of wnids.txt")
        paths += [f"{folder}/{file}" for file in files]
        labels += len(files) * [label]
    return file_split(source, prefix, paths, np.array(labels), size)


def _validation(source: Source, prefix: str, wnids: list[str], size: int | None) -> Split:
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    paths, found = [], []
    annotations = f"{prefix}val/val_annotations.txt"
    for number, line in enumerate(source.lines(annotations), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in labels:
            raise DataError(f"{source.where(annotations)}:{number}: '{line}' names no image and class of wnids.txt")
        paths.append(f"val/images/{fields[0]}")
        found.append(labels[fields[1]])
    return file_split(source, prefix, paths, np.array(found, int), size)


if __name__ == "__main__":
    run_command(main)
