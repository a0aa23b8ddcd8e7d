"""From the images of a data set to train_lmdb, test_lmdb and dataset.json: what all commands share."""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.channel_statistics import ChannelStatistics
from data_prep.datum import ENCODINGS, Image, decode_image, encode_datum
from data_prep.errors import DataError
from data_prep.lmdb_io import LmdbWriter, record_key
from data_prep.progress import progress
from data_prep.sources import Source
from data_prep.staging import staging

BATCH_BYTES = 1 << 23  # of pixels in memory, and in one LMDB transaction


@dataclass
class Split:
    """The training or the test images: label and name of each, and a function that reads one by its index."""

    labels: np.ndarray
    names: Sequence[str]
    read: Callable[[int], Image]


@dataclass
class Dataset:
    """`notes` is what else dataset.json should tell."""

    classes: list[str]
    train: Split
    test: Split
    notes: dict = field(default_factory=dict)


@dataclass
class Recipe:
    """All that decides the content of a prepared data set; the same recipe gives the same records."""

    name: str
    source: str
    checksums: dict[str, str]
    seed: int
    encoding: str
    options: dict = field(default_factory=dict)

    def decides(self) -> dict:
        """The part of dataset.json that a second run compares (where the same bytes came from does not matter)."""
        return {
            "name": self.name,
            "checksums": self.checksums,
            "seed": self.seed,
            "encoding": self.encoding,
        } | self.options


def add_arguments(parser: argparse.ArgumentParser, name: str, source_help: str) -> None:
    parser.add_argument("--source", type=Path, help=source_help)
    parser.add_argument("--out", type=Path, help=f"folder to make (default: data/{name})")
    parser.add_argument(
        "--encoding", choices=ENCODINGS, default="raw", help="of the records (default: raw, the fastest to read)"
    )
    parser.add_argument("--seed", type=seed_number, default=1, help="of the records' shuffled order (default: 1)")


def add_size_argument(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--size", type=_side, help=f"resize all images to SIZE x SIZE with OpenCV (default: {default})")


def file_split(source: Source, prefix: str, paths: list[str], labels: np.ndarray, size: int | None) -> Split:
    """A split of image files: `paths` below `prefix` in `source`."""

    def read(index: int) -> Image:
        name = prefix + paths[index]
        return decode_image(source.read(name), source.where(name), size)

    return Split(labels, paths, read)


def prepare(out: Path, recipe: Recipe, load: Callable[[Path], AbstractContextManager[Dataset]]) -> None:
    """Makes `out` from the data set that `load` opens (given a folder for scratch files), or says that it is there.

    Raises DataError, leaving nothing behind, for bad input, a full disk, or an `out` made otherwise.
    """
    if is_prepared(out, recipe):
        return
    start = time.monotonic()
    with staging(out) as stage:
        with load(stage) as dataset:
            description = write_dataset(stage, dataset, recipe)
        description["seconds"] = round(time.monotonic() - start, 2)
        (stage / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")
    counts = ", ".join(f"{description[split]['records']:,} {split} images" for split in ("train", "test"))
    print(f"{out}: {counts} in {description['num_classes']} classes, {description['seconds']:.1f} s")


def is_prepared(out: Path, recipe: Recipe) -> bool:
    """True, and says so, if `out` was made by this recipe. DataError if something else is there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / "dataset.json").read_text())
        for split in ("train", "test"):
            (out / f"{split}_lmdb/data.mdb").stat()
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{out} exists and is no prepared data set: choose another --out, or remove it")
    for key, value in recipe.decides().items():
        if found.get(key) != value:
            was, wanted = ("the default" if one is None else one for one in (found.get(key), value))
            raise DataError(
                f"{out} exists and was prepared with {key} {was}, not {wanted}: choose another --out, or remove it"
            )
    print(f"{out}: already prepared from the same input, nothing to do")
    return True


def write_dataset(folder: Path, dataset: Dataset, recipe: Recipe) -> dict:
    """Writes both LMDBs; returns what dataset.json tells. Statistics are those of the training images."""
    statistics = ChannelStatistics()
    shape = None
    splits = {}
    for index, (split_name, split) in enumerate((("train", dataset.train), ("test", dataset.test))):
        counts = _count_classes(split, split_name, dataset.classes)
        order = np.random.default_rng([recipe.seed, index]).permutation(len(split.labels))
        with (
            LmdbWriter(folder / f"{split_name}_lmdb") as writer,
            progress(total=len(order), desc=split_name, unit="img") as bar,
        ):
            for batch, images in _read_batches(split, order, shape):
                shape = images[0].pixels.shape
                if split_name == "train":
                    statistics.add(np.stack([image.pixels for image in images]))
                writer.put(_records(split, order, batch, images, recipe.encoding))
                bar.update(len(images))
            writer.finish()
        splits[split_name] = {"records": len(order), "per_class": counts}
    return {
        "name": recipe.name,
        "num_classes": len(dataset.classes),
        **splits,
        "image": dict(zip(("channels", "height", "width"), shape, strict=True)),
        "channel_order": "BGR",
        "mean": statistics.mean,
        "std": statistics.std,
        "source": recipe.source,
        **recipe.decides(),
        "classes": dataset.classes,
        **dataset.notes,
    }


def _count_classes(split: Split, split_name: str, classes: list[str]) -> list[int]:
    bad = np.flatnonzero((split.labels < 0) | (split.labels >= len(classes)))
    if bad.size:
        raise DataError(f"{split.names[bad[0]]}: label {split.labels[bad[0]]}, but labels are 0 to {len(classes) - 1}")
    counts = np.bincount(split.labels, minlength=len(classes))
    if missing := [name for name, count in zip(classes, counts, strict=True) if not count]:
        raise DataError(f"the {split_name} images lack {len(missing)} of {len(classes)} classes, first '{missing[0]}'")
    return counts.tolist()


def _read_batches(split: Split, order: np.ndarray, shape: tuple | None) -> Iterator[tuple[int, list[Image]]]:
    """Yields (position of the first image in `order`, images). All must have one shape, that of the first if None."""
    images: list[Image] = []
    first = f"{shape[2]}x{shape[1]} as the training images" if shape else ""
    for position, index in enumerate(order):
        image = split.read(index)
        if shape is None:
            shape, first = (
                image.pixels.shape,
                f"{image.pixels.shape[2]}x{image.pixels.shape[1]} as {split.names[index]}",
            )
        if image.pixels.shape != shape:
            height, width = image.pixels.shape[1:]
            raise DataError(f"{split.names[index]}: {width}x{height} pixels, not {first}; --size S resizes all to SxS")
        images.append(image)
        if len(images) * image.pixels.size >= BATCH_BYTES or position == len(order) - 1:
            yield position + 1 - len(images), images
            images = []


def _records(
    split: Split, order: np.ndarray, start: int, images: list[Image], encoding: str
) -> list[tuple[bytes, bytes]]:
    return [
        (
            record_key(position, split.names[order[position]]),
            encode_datum(image, int(split.labels[order[position]]), encoding),
        )
        for position, image in enumerate(images, start)
    ]


def seed_number(text: str) -> int:
    if (seed := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{seed} is negative: seeds are 0, 1, ...")
    return seed


def _side(text: str) -> int:
    side = int(text)
    if not 1 <= side <= 4096:
        raise argparse.ArgumentTypeError(f"{side} is not between 1 and 4096 pixels")
    return side
