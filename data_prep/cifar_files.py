"""The files of CIFAR's binary and python versions: names, published checksums, and how to read them."""

import hashlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from data_prep.errors import DataError
from data_prep.sources import Source, damage

PIXELS = 3 * 32 * 32
CHUNK = 2_000  # images in memory
KINDS = {"cifar10": {"": 10}, "cifar100": {"fine_": 100, "coarse_": 20}}  # kinds of labels, and the number of classes


@dataclass(frozen=True)
class Layout:
    """One version of one data set."""

    archive: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    images: dict[str, int]  # in each file
    columns: tuple[str, ...]  # binary version: the label bytes before the pixels; python version: none
    names: str  # file with the class names; {kind} is the kind of labels


BATCHES = tuple(f"data_batch_{batch}" for batch in range(1, 6))
LAYOUTS = {
    "cifar10": (
        Layout(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            tuple(f"{batch}.bin" for batch in BATCHES),
            ("test_batch.bin",),
            {f"{batch}.bin": 10_000 for batch in (*BATCHES, "test_batch")},
            ("",),
            "batches.meta.txt",
        ),
        Layout(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            BATCHES,
            ("test_batch",),
            {batch: 10_000 for batch in (*BATCHES, "test_batch")},
            (),
            "batches.meta",
        ),
    ),
    "cifar100": (
        Layout(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            ("train.bin",),
            ("test.bin",),
            {"train.bin": 50_000, "test.bin": 10_000},
            ("coarse_", "fine_"),
            "{kind}label_names.txt",
        ),
        Layout(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            ("train",),
            ("test",),
            {"train": 50_000, "test": 10_000},
            (),
            "meta",
        ),
    ),
}

# MD5: as torchvision checks them. SHA-256: of the binary files with the same pixels and labels in the same order.
DIGESTS = {
    "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "md5:40351d587109b95175f43aff81a1287e",
    "train": "md5:16019d7e3df5f24257cddd939b257f8d",
    "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
    "data_batch_1.bin": "sha256:cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "sha256:a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "sha256:bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "sha256:014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "sha256:755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "sha256:8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    "train.bin": "sha256:f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
    "test.bin": "sha256:d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
}


def read_images(
    source: Source, prefix: str, layout: Layout, file: str, kind: str, verify: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (images (n, 3, 1024) uint8 in RGB order, labels (n,) of this kind), together all of `file`, in its order.

    DataError if it is truncated, holds another number of images, or (if `verify`) is not the published file.
    """
    name = prefix + file
    where = source.where(name)
    if verify:
        _verify(source, name, DIGESTS[file])
    count = layout.images[file]
    with damage(where), source.open(name) as stream:
        yield from (
            _binary(stream, where, count, layout, kind) if layout.columns else _pickled(stream, where, count, kind)
        )


def class_names(source: Source, prefix: str, layout: Layout, kind: str, count: int) -> list[str]:
    """The `count` names of this kind of labels; DataError if the file has another number."""
    name = prefix + layout.names.format(kind=kind)
    if layout.columns:
        names = [word for line in source.lines(name) for word in line.split()]
    else:
        with source.open(name) as stream:
            labels = _unpickle(stream, source.where(name), f"{kind}label_names")
        try:
            names = [label.decode() for label in labels]
        except (AttributeError, TypeError, UnicodeDecodeError) as error:
            raise DataError(f"{source.where(name)}: its class names are no text in UTF-8 ({error})") from None
    if len(names) != count:
        raise DataError(f"{source.where(name)}: {len(names)} class names instead of {count}")
    return names


def _verify(source: Source, name: str, digest: str) -> None:
    algorithm, expected = digest.split(":")
    with damage(source.where(name)), source.open(name) as stream:
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    if found != expected:
        raise DataError(
            f"{source.where(name)}: wrong checksum, {algorithm} {found} instead of the published {expected}; "
            "the file is damaged or changed (--no-checksum accepts it)"
        )


def _binary(
    stream: BinaryIO, where: str, count: int, layout: Layout, kind: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    record = len(layout.columns) + PIXELS
    done = 0
    while data := stream.read(CHUNK * record):
        if len(data) % record:
            break
        records = np.frombuffer(data, np.uint8).reshape(-1, record)
        done += len(records)
        yield records[:, len(layout.columns) :].reshape(-1, 3, 1024), records[:, layout.columns.index(kind)]
    if data or done != count:
        raise DataError(
            f"{where}: {done * record + len(data)} bytes instead of {count * record}, truncated or not CIFAR"
        )


def _pickled(stream: BinaryIO, where: str, count: int, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pixels, labels = _unpickle(stream, where, "data", f"{kind}labels")
    if getattr(pixels, "shape", None) != (count, PIXELS) or pixels.dtype != np.uint8 or len(labels) != count:
        raise DataError(
            f"{where}: {len(labels)} labels and pixels {np.shape(pixels)}, not {count} and ({count}, {PIXELS})"
        )
    for start in range(0, count, CHUNK):
        stop = start + CHUNK
        yield pixels[start:stop].reshape(-1, 3, 1024), np.array(labels[start:stop])


def _unpickle(stream: BinaryIO, where: str, *keys: str):
    try:
        found = _ArrayUnpickler(stream, encoding="bytes").load()
        values = [found[key.encode()] for key in keys]
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{where}: no CIFAR pickle with {' and '.join(keys)}, or truncated ({error!r})") from None
    return values[0] if len(values) == 1 else values


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and Python's own containers, and calls nothing else: a pickle could run any code."""

    ALLOWED = {
        "_reconstruct": np.empty(0).__reduce__()[0],
        "ndarray": np.ndarray,
        "dtype": np.dtype,
    }

    def find_class(self, module: str, name: str):
        if module.split(".")[0] == "numpy" and name in self.ALLOWED:
            return self.ALLOWED[name]
        raise pickle.UnpicklingError(f"refused {module}.{name}")
