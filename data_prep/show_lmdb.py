#!/usr/bin/env python3
"""What is in an LMDB of images: counts per class, statistics, sizes, and a contact sheet as PNG.

Each row of the sheet shows a record as it is stored and, if this Caffe has AugmentedData, as that layer gives it to the
training net several times over.
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    os.environ.setdefault("GLOG_minloglevel", "2")  # before Caffe is loaded: no report of every layer

from data_prep.augmented_views import Augmentation, NotAvailable, augmented_views
from data_prep.channel_statistics import ChannelStatistics
from data_prep.contact_sheet import write_contact_sheet
from data_prep.datum import decode_datum, stored_form
from data_prep.errors import DataError, run_command
from data_prep.lmdb_io import open_records
from data_prep.prepare import seed_number

Record = tuple[str, bytes]  # the key as messages show it, for it need not be text


@dataclass
class Summary:
    """All records of an LMDB in a few numbers; `samples`: the first record of each label."""

    path: Path
    records: int = 0
    labels: Counter = field(default_factory=Counter)
    forms: Counter = field(default_factory=Counter)  # (encoding, shape)
    statistics: dict[int, ChannelStatistics] = field(default_factory=dict)  # by number of channels
    samples: dict[int, Record] = field(default_factory=dict)


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    summary = summarize(args.lmdb)
    names = class_names(args.lmdb)
    print_summary(summary, names)
    samples = [summary.samples[label] for label in sorted(summary.samples)[: args.samples]]
    originals = [decode_datum(value, name) for name, value in samples]
    views = _views(samples, originals, summary, args)
    captions = [names.get(label, str(label)) for _, label in originals]
    out = args.out or Path(f"{args.lmdb.resolve().name}.png")
    write_contact_sheet(out, captions, [pixels for pixels, _ in originals], views)
    print(f"\n{out}: {len(samples)} records" + (f", each augmented {args.views} times" if views is not None else ""))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lmdb", type=Path, help="folder of the LMDB, for instance data/cifar10/train_lmdb")
    parser.add_argument("--out", type=Path, help="the contact sheet (default: NAME.png here, NAME that of the LMDB)")
    parser.add_argument(
        "--samples", type=int, default=10, help="rows: one record of each of the first labels (default: 10)"
    )
    parser.add_argument("--views", type=int, default=8, help="augmented images in a row (default: 8)")
    group = parser.add_argument_group(
        "augmentation",
        "AugmentedData's; the default is the paper's: pad 4 for 32x32 images, scale up to 5/4 for larger ones",
    )
    group.add_argument("--crop", type=int, help="crop_size (default: the height of the images)")
    group.add_argument("--pad", type=int, help="pixels added on each side")
    group.add_argument("--black", action="store_true", help="pad with black instead of the mean")
    group.add_argument("--scale", type=int, nargs=2, metavar=("MIN", "MAX"), help="random size before the crop")
    group.add_argument("--no-mirror", action="store_true")
    group.add_argument("--seed", type=seed_number, default=1)
    args = parser.parse_args(argv)
    for name in ("samples", "views"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1")
    return args


def summarize(path: Path) -> Summary:
    """Reads every record; DataError naming the first damaged one."""
    summary = Summary(path)
    with open_records(path) as transaction:
        for key, value in transaction.cursor():
            name = key.decode(errors="replace")
            pixels, label = decode_datum(value, name)
            summary.records += 1
            summary.labels[label] += 1
            summary.forms[stored_form(value), pixels.shape] += 1
            channels = len(pixels)
            summary.statistics.setdefault(channels, ChannelStatistics(channels)).add(pixels[np.newaxis])
            summary.samples.setdefault(label, (name, value))
    return summary


def class_names(path: Path) -> dict[int, str]:
    """From the dataset.json beside the LMDB; none if there is none."""
    try:
        description = json.loads((path.resolve().parent / "dataset.json").read_text())
        return dict(enumerate(description["words" if "words" in description else "classes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def print_summary(summary: Summary, names: dict[int, str]) -> None:
    size = sum(file.stat().st_size for file in summary.path.glob("data.mdb"))
    print(f"{summary.path}: {summary.records:,} records, {size / 2**20:.1f} MiB")
    for (form, shape), count in summary.forms.most_common():
        print(f"  {count:>9,} {form} of {'x'.join(map(str, shape))} (channels x height x width)")
    for statistics in summary.statistics.values():
        for name, values in (("mean", statistics.mean), ("std", statistics.std)):
            print(f"  {name:<4} " + " ".join(f"{value:8.3f}" for value in values) + "  (in the records' channel order)")
    print(f"  {len(summary.labels)} labels:")
    for label, count in sorted(summary.labels.items()):
        print(f"  {label:>5} {count:>9,}  {names.get(label, '')}".rstrip())


def _views(samples: list[Record], originals: list, summary: Summary, args: argparse.Namespace) -> np.ndarray | None:
    """Augmented images (views, samples, C, H, W), or None, saying why."""
    shapes = {pixels.shape for pixels, _ in originals}
    if len(shapes) > 1:
        print("no augmented images: the records are of several sizes")
        return None
    augmentation = _augmentation(args, min(originals[0][0].shape[1:]))
    statistics = summary.statistics[len(originals[0][0])]
    std = [value or 1.0 for value in statistics.std]  # a channel of one value
    try:
        return augmented_views([value for _, value in samples], statistics.mean, std, augmentation, args.views)
    except NotAvailable as reason:
        print(f"no augmented images: {reason}")
        return None


def _augmentation(args: argparse.Namespace, side: int) -> Augmentation:
    """What the options say, or the paper's for images of this side. DataError where AugmentedData would refuse."""
    scale = args.scale
    if scale is None and args.pad is None and side > 32:
        scale = (side, side * 5 // 4)
    pad = (0 if scale else side // 8) if args.pad is None else args.pad
    crop = args.crop or side
    if scale and not 1 <= scale[0] <= scale[1]:
        raise DataError(f"--scale {scale[0]} {scale[1]}: MIN must be from 1 to MAX")
    largest = (scale[0] if scale else side) + 2 * pad
    if pad < 0 or not 1 <= crop <= largest:
        raise DataError(f"--crop {crop} --pad {pad}: the image to crop from is {largest} pixels wide")
    return Augmentation(crop, pad, args.black, not args.no_mirror, tuple(scale) if scale else None, args.seed)


if __name__ == "__main__":
    run_command(main)
