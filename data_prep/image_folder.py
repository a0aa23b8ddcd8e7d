#!/usr/bin/env python3
"""Any folder (or archive) of class folders of images into LMDB.

Either train/CLASS/FILE with test/CLASS/FILE or val/CLASS/FILE, or just CLASS/FILE, of which a seeded share of each
class becomes the test set. Labels follow the sorted names of the class folders. Gray images become three equal
channels; all must have one size unless --size resizes them.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data_prep.errors import DataError, run_command
from data_prep.prepare import Dataset, Recipe, add_arguments, add_size_argument, file_split, prepare
from data_prep.sources import Source, checksums, open_source

ARCHIVE = re.compile(r"\.(zip|tar|tgz|txz|tbz2?|tar\.(gz|xz|bz2))$", re.IGNORECASE)
TEST_FRACTION = 0.1
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "NAME", "folder or archive (required)")
    add_size_argument(parser, "as they are")
    parser.add_argument("--name", help="of the data set (default: that of the folder)")
    parser.add_argument(
        "--test-fraction", type=float, help=f"of each class, where no test/ or val/ is there (default: {TEST_FRACTION})"
    )
    args = parser.parse_args(argv)
    if args.source is None:
        parser.error("--source is needed: a folder of class folders")
    if not args.name and not args.source.resolve().name:
        parser.error(f"--name is needed: --source {args.source} has none")
    if args.test_fraction is not None and not 0 < args.test_fraction < 1:
        parser.error(f"--test-fraction {args.test_fraction} must be between 0 and 1")
    name = args.name or _name(args.source)
    fraction = None if args.test_fraction == TEST_FRACTION else args.test_fraction  # one recipe, given or not
    options = {"size": args.size, "test_fraction": fraction}
    recipe = Recipe(name, str(args.source), checksums(args.source), args.seed, args.encoding, options)
    out = args.out or Path("data") / name
    prepare(out, recipe, lambda scratch: load(args.source, scratch, args.size, args.test_fraction, args.seed))
    return 0


def _name(source: Path) -> str:
    """That of the folder or, without its suffix, of the archive."""
    name = source.resolve().name
    return name if source.is_dir() else ARCHIVE.sub("", name) or name


@contextmanager
def load(path: Path, scratch: Path, size: int | None, test_fraction: float | None, seed: int) -> Iterator[Dataset]:
    """Opens an archive or folder; images are read one by one when the splits ask for them."""
    with open_source(path, scratch) as source:
        prefix = _root(source)
        folders = source.folders(prefix.rstrip("/"))
        test_folder = next((folder for folder in ("test", "val") if folder in folders), None)
        if "train" in folders and test_folder:
            if test_fraction is not None:
                raise DataError(
                    f"--test-fraction {test_fraction}, but {source.where(prefix + test_folder)} is the test set"
                )
            classes = source.folders(f"{prefix}train")
            if unknown := set(source.folders(prefix + test_folder)) - set(classes):
                where = source.where(f"{prefix}{test_folder}/{min(unknown)}")
                raise DataError(f"{where}: a class without training images in {source.where(prefix + 'train')}")
            train = _list(source, prefix, "train/", classes)
            test = _list(source, prefix, f"{test_folder}/", classes)
        else:
            classes = folders
            train, test = _divide(*_list(source, prefix, "", classes), test_fraction or TEST_FRACTION, seed)
        yield Dataset(classes, *(file_split(source, prefix, *split, size) for split in (train, test)))


def _root(source: Source) -> str:
    """An archive may wrap everything in one folder."""
    prefix = ""
    while len(folders := source.folders(prefix.rstrip("/"))) == 1 and source.folders(prefix + folders[0]):
        prefix += f"{folders[0]}/"
    return prefix


def _list(source: Source, prefix: str, split: str, classes: list[str]) -> tuple[list[str], np.ndarray]:
    """Paths and labels of all image files in the class folders."""
    paths, labels = [], []
    for label, name in enumerate(classes):
        files = [file for file in source.files(f"{prefix}{split}{name}") if file.lower().endswith(EXTENSIONS)]
        if not files:
            raise DataError(
                f"{source.where(f'{prefix}{split}{name}')}: no images of this class ({', '.join(EXTENSIONS)})"
            )
        paths += [f"{split}{name}/{file}" for file in files]
        labels += len(files) * [label]
    if not paths:
        raise DataError(f"{source.where(prefix + split)} holds no class folders")
    return paths, np.array(labels)


def _divide(paths: list[str], labels: np.ndarray, fraction: float, seed: int) -> tuple:
    """((paths, labels) to train, the same to test): of each class `fraction`, rounded, but at least one image each."""
    is_test = np.zeros(len(labels), bool)
    random = np.random.default_rng([seed, 2])  # 0 and 1 shuffle the records
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise DataError(
                f"{paths[members[0]]} is the only image of its class: a training and a test image are needed"
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_test[random.choice(members, count, replace=False)] = True
    return tuple(([paths[index] for index in np.flatnonzero(part)], labels[part]) for part in (~is_test, is_test))


if __name__ == "__main__":
    run_command(main)
