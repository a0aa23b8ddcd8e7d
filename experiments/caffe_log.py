#!/usr/bin/env python3
"""What `caffe train` logged: losses, accuracies and learning rates by iteration.

Reads glog lines with a year (I20261123) and without (I1123), logs cut short, and several runs of one training in a row,
as a resumed one leaves them. As a command, prints the last values.
"""

import re
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.files import file_errors

_LINE = re.compile(r"^[IWEF](?P<stamp>(?:\d{8}|\d{4}) \d\d:\d\d:\d\d\.\d+) +\d+ \S+:\d+\] (?P<text>.*)$")
_NUMBER = r"(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan))"
_LOSS = re.compile(rf"^Iteration (\d+)(?: \(.*\))?, loss = {_NUMBER}$")
_RATE = re.compile(rf"^Iteration (\d+), lr = {_NUMBER}$")
_TEST = re.compile(r"^Iteration (\d+), Testing net \(#(\d+)\)$")
_OUTPUT = re.compile(rf"^ +(Train|Test) net output #\d+: (\S+) = {_NUMBER}(?: .*)?$")
_STOPPED = {"Optimization stopped early.", "Test interrupted."}  # "Optimization Done." comes behind them all the same
_RESUME = re.compile(r"^Restoring previous solver status from |^Resuming from ")


@dataclass
class CaffeLog:
    """Values by iteration: train and test map a net output's name (loss, accuracy) to [(iteration, value)].

    `smoothed_loss` is the solver's own, averaged over average_loss iterations; `rate` the learning rate.
    `train_times` and `test_times`: when these iterations were logged, in seconds since 1970.
    """

    train: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    test: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    smoothed_loss: list[tuple[int, float]] = field(default_factory=list)
    rate: list[tuple[int, float]] = field(default_factory=list)
    train_times: dict[int, float] = field(default_factory=dict)
    test_times: dict[int, float] = field(default_factory=dict)
    done: bool = False

    @property
    def final_test_accuracy(self) -> float | None:
        """Of the last test, whatever its output is called that has `accuracy` in its name."""
        for name, values in self.test.items():
            if "accuracy" in name.lower() and values:
                return values[-1][1]
        return None


def read_log(path: Path) -> CaffeLog:
    """The log at `path`. Lines that are none of Caffe's are passed over. Raises Invalid if it cannot be read."""
    with file_errors("read", path):
        return parse_log(path.read_text(errors="replace"), datetime.fromtimestamp(path.stat().st_mtime))


def parse_log(text: str, written: datetime | None = None) -> CaffeLog:
    """A log's text. A last line without its newline may lack digits, and is left out.

    written: local time when the log was last written, by default now; it tells the year where the lines do not.
    """
    log, state = CaffeLog(), _State(written or datetime.now())
    for line in text[: text.rfind("\n") + 1].splitlines():
        if match := _LINE.match(line):
            _parse_message(match["text"], log, state, match["stamp"])
    return log


def duration(text: str, written: datetime | None = None) -> float:
    """Seconds from Caffe's first line in a log's text to its last; none where a clock was set back in between.

    written: as for parse_log.
    """
    stamps = [match["stamp"] for line in text.splitlines() if (match := _LINE.match(line))]
    if not stamps:
        return 0.0
    written = written or datetime.now()
    return max(0.0, _seconds(stamps[-1], written) - _seconds(stamps[0], written))


@dataclass
class _State:
    """train, test: the iterations that lines without one belong to; stopped: by a signal, since the last start."""

    written: datetime
    train: int | None = None
    test: int | None = None
    stopped: bool = False


def _seconds(stamp: str, written: datetime) -> float:
    """Since 1970, of a stamp in local time; without a year, the last one that puts it before `written`."""
    date, _, time = stamp.partition(" ")
    latest = written + timedelta(days=1)
    years = [""] if len(date) == 8 else range(latest.year, latest.year - 9, -1)  # nine have a 29 February
    for year in years:
        try:
            found = datetime.strptime(f"{year}{date} {time}", "%Y%m%d %H:%M:%S.%f")
        except ValueError:
            continue
        if year == "" or found <= latest:
            return found.timestamp()
    return written.timestamp()


def _parse_message(text: str, log: CaffeLog, state: _State, stamp: str) -> None:
    if match := _LOSS.match(text):
        state.train = int(match[1])
        _add(log.smoothed_loss, state.train, match[2])
        log.train_times[state.train] = _seconds(stamp, state.written)
    elif match := _RATE.match(text):
        _add(log.rate, int(match[1]), match[2])
    elif match := _TEST.match(text):
        state.test = int(match[1]) if match[2] == "0" else None
    elif match := _OUTPUT.match(text):
        _parse_output(match, log, state, stamp)
    elif text in _STOPPED:
        state.stopped = True
    elif text == "Optimization Done.":
        log.done = not state.stopped
    elif _RESUME.match(text):
        log.done = state.stopped = False
        state.train = state.test = None


def _parse_output(match: re.Match, log: CaffeLog, state: _State, stamp: str) -> None:
    if match[1] == "Train" and state.train is not None:
        _add(log.train.setdefault(match[2], []), state.train, match[3])
    elif match[1] == "Test" and state.test is not None:
        _add(log.test.setdefault(match[2], []), state.test, match[3])
        log.test_times[state.test] = _seconds(stamp, state.written)


def _add(values: list[tuple[int, float]], iteration: int, value: str) -> None:
    """What a resumed run does again takes the place of what the run before did."""
    while values and values[-1][0] >= iteration:
        values.pop()
    values.append((iteration, float(value)))


@command
def main(argv=None):
    parser = Parser(prog="caffe_log", description="The last values in a log of `caffe train`.")
    parser.add_argument("log", type=Path)
    path = parser.parse_args(argv).log
    log = read_log(path)
    for name, values in (("loss", log.smoothed_loss), *((f"test {n}", v) for n, v in log.test.items())):
        if values:
            print(f"{name}: {values[-1][1]:g} (iteration {values[-1][0]})")
    if not log.test:
        raise Invalid(f"{path}: no test in this log")
    if log.final_test_accuracy is None:
        raise Invalid(f"{path}: no accuracy among what its tests put out ({', '.join(log.test)})")
    print(f"final test accuracy: {100 * log.final_test_accuracy:.2f} %{'' if log.done else ' (training not finished)'}")


if __name__ == "__main__":
    raise SystemExit(main())
