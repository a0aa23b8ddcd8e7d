#!/usr/bin/env python3
"""Event files for TensorBoard from any log of `caffe train`: losses, accuracies and the learning rate by iteration.

Written to OUT/train and OUT/test, so that TensorBoard draws both into one chart; wall times are the log's.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.caffe_log import CaffeLog, read_log
from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.files import file_errors, write_files


def scalars(log: CaffeLog) -> Iterator[tuple[str, str, int, float, float]]:
    """(train or test, name, iteration, value, seconds since 1970), in the log's order of names."""
    train = {"smoothed_loss": log.smoothed_loss, "learning_rate": log.rate, **log.train}
    for phase, values, times in (("train", train, log.train_times), ("test", log.test, log.test_times)):
        for name, points in values.items():
            for iteration, value in points:
                if iteration in times:
                    yield phase, name, iteration, value, times[iteration]


def make_events(log: CaffeLog) -> tuple[dict[Path, bytes], int]:
    """The event files, as train/NAME and test/NAME, and the number of values in them. Raises Invalid."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise Invalid("event files need tensorboardX: pip install 'caffe-igc[experiments]', or tensorboardX") from None
    writers, count = {}, 0
    with tempfile.TemporaryDirectory() as folder, file_errors("write", folder):
        for phase, name, iteration, value, seconds in scalars(log):
            if phase not in writers:
                writers[phase] = SummaryWriter(f"{folder}/{phase}")
            writers[phase].add_scalar(name, value, iteration, seconds)
            count += 1
        for writer in writers.values():
            writer.close()
        return {path.relative_to(folder): path.read_bytes() for path in Path(folder).glob("*/*")}, count


@command
def main(argv=None):
    parser = Parser(
        prog="log_to_tensorboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path, metavar="LOG")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: LOG without its suffix, and _tensorboard")
    parser.add_argument("--force", action="store_true", help="replace event files that are there already")
    args = parser.parse_args(argv)
    out = args.out or args.log.with_name(f"{args.log.stem}_tensorboard")
    log = read_log(args.log)
    if not log.train_times and not log.test_times:
        raise Invalid(f"{args.log}: no iteration of a training in this log")
    old = [path for phase in ("train", "test") for path in (out / phase).glob("events.out.tfevents.*")]
    if old and not args.force:
        raise Invalid(f"{old[0]} is there already: --force replaces it, --out DIR writes elsewhere")
    events, count = make_events(log)
    write_files({out / name: content for name, content in events.items()})
    for path in old:
        if path.relative_to(out) not in events:
            with file_errors("remove", path):
                path.unlink()
    print(f"{count} values written: tensorboard --logdir {out}")


if __name__ == "__main__":
    raise SystemExit(main())
