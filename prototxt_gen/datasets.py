"""What the generators must know of a data set: sizes, classes, and the constants of the augmentation."""

import json
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.command_line import Invalid, unknown


@dataclass(frozen=True)
class Dataset:
    """mean and std: per channel in the records' order, which is BGR, in 0..255."""

    name: str
    classes: int
    train: int
    test: int
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    folder: Path | None = None  # where its LMDBs are; None: data/<name>
    augmented: bool = True

    @property
    def first_stride(self) -> int:
        """Tiny ImageNet: the first convolution has stride 2 (section 4.1)."""
        return 2 if self.size > 32 else 1

    @property
    def pad(self) -> int:
        """CIFAR: pad by 4, then crop 32; larger images are scaled instead."""
        return self.size // 8 if self.size <= 32 and self.augmented else 0

    @property
    def max_scale(self) -> int:
        """Tiny ImageNet: scale to a random size from 64 to 80, then crop 64. 0: no scaling."""
        return self.size * 5 // 4 if self.size > 32 else 0


def _bgr(*rgb):
    return tuple(reversed(rgb))


# Means and deviations of the training sets: CIFAR those of the published settings, Fashion-MNIST padded to 32x32.
BUILT_IN = {
    d.name: d
    for d in (
        Dataset(
            "cifar10", 10, 50_000, 10_000, 3, 32, _bgr(125.307, 122.950, 113.865), _bgr(62.993, 62.089, 66.705), 400
        ),
        Dataset(
            "cifar100", 100, 50_000, 10_000, 3, 32, _bgr(129.304, 124.070, 112.434), _bgr(68.170, 65.392, 70.418), 400
        ),
        Dataset(
            "tiny-imagenet",
            200,
            100_000,
            10_000,
            3,
            64,
            _bgr(122.451, 114.266, 101.363),
            _bgr(70.482, 68.570, 71.808),
            200,
        ),
        # Its garments are centred and its shoes all face one way: crops and mirrors only make a short run worse.
        Dataset("fashion-mnist", 10, 60_000, 10_000, 3, 32, (55.845,) * 3, (84.612,) * 3, 400, augmented=False),
    )
}


def find_dataset(name: str) -> Dataset:
    """A built-in data set by its name, or a folder made by data_prep. Raises Invalid."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read_folder(folder.resolve())
    error = unknown("data set", name, BUILT_IN)
    raise Invalid(f"{error}; or give a folder made by data_prep")


def read_folder(folder: Path) -> Dataset:
    """The data set described by folder/dataset.json."""
    path = folder / "dataset.json"
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}: a folder made by data_prep has it") from None
    except ValueError as error:
        raise Invalid(f"{path} is no JSON: {error}") from None
    counts = ("num_classes", "train.records", "test.records", "image.channels", "image.height", "image.width")
    classes, train, test, channels, height, width = (_count(path, facts, key) for key in counts)
    if height != width:
        raise Invalid(f"{path}: images of {height} x {width}: square ones are needed")
    if facts.get("channel_order", "BGR") != "BGR" and channels > 1:
        raise Invalid(f"{path}: channel_order {facts['channel_order']}: BGR is needed")
    name = facts.get("name")
    if not isinstance(name, str) or not name:
        raise Invalid(f"{path}: name is {name!r} instead of the data set's name")
    mean, std = (_of_channels(path, facts, key, channels, least) for key, least in (("mean", 0), ("std", 1e-6)))
    return Dataset(name, classes, train, test, channels, height, mean, std, 400 if height <= 32 else 200, folder)


def _count(path: Path, facts, key: str) -> int:
    """The number at a place such as train.records."""
    value = facts
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if type(value) is not int or value < 1:
        raise Invalid(f"{path}: {key} is {value!r} instead of a number from 1 on: make the folder again with data_prep")
    return value


def _of_channels(path: Path, facts: dict, key: str, channels: int, least: float) -> tuple[float, ...]:
    values = facts.get(key)
    numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != channels or not all(least <= value <= 255 for value in values):
        raise Invalid(f"{path}: {key} is {values!r} instead of a number from {least:g} to 255 for each channel")
    return tuple(values)
