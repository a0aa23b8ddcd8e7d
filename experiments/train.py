#!/usr/bin/env python3
"""Runs `caffe train` for a solver, from its newest snapshot if there is one, with a line of progress now and then.

The full log goes to a file; a resumed training adds to the log of the run before. Ctrl-C makes a snapshot and stops.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.caffe_log import CaffeLog, read_log

_FIELD = r'^\s*{}:\s*"?([^"\s]+)"?'


def solver_field(solver: Path, name: str) -> str:
    """The value of a field of solver.prototxt; exits if it is not there."""
    match = re.search(_FIELD.format(name), solver.read_text(), re.MULTILINE)
    if not match:
        sys.exit(f"error: {solver}: no {name}")
    return match[1]


def newest_snapshot(prefix: str) -> Path | None:
    """PREFIX_iter_N.solverstate with the largest N."""
    found = {}
    for path in Path(prefix).parent.glob(f"{Path(prefix).name}_iter_*.solverstate"):
        if match := re.search(r"_iter_(\d+)\.solverstate$", path.name):
            found[int(match[1])] = path
    return found[max(found)] if found else None


def caffe_binary() -> str:
    """The `caffe` beside this Python, or on PATH."""
    found = shutil.which("caffe", path=str(Path(sys.executable).parent)) or shutil.which("caffe")
    return found or sys.exit("error: there is no `caffe` executable: run `make build` or `pip install .`")


def train(solver: Path, log_path: Path, extra: list[str]) -> CaffeLog:
    """Runs the training to its end, and returns its log. Exits with Caffe's status if that is not 0."""
    command = [caffe_binary(), "train", f"--solver={solver}", *extra]
    if snapshot := newest_snapshot(solver_field(solver, "snapshot_prefix")):
        print(f"resuming from {snapshot}")
        command.append(f"--snapshot={snapshot}")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    max_iter = int(solver_field(solver, "max_iter"))
    with open(log_path, "a" if snapshot else "w") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "GLOG_logtostderr": "1"},
        )
        progress = Progress(max_iter)
        while line := _next_line(process):
            log.write(line)
            log.flush()
            progress.show(line)
    if process.wait() != 0:
        fatal = [line for line in log_path.read_text(errors="replace").splitlines() if re.match(r"F\d{4,8} ", line)]
        reason = fatal[-1].partition("] ")[2] if fatal else f"status {process.returncode}"
        sys.exit(f"error: caffe: {reason} (full log: {log_path})")
    result = read_log(log_path)
    if progress.stopped:
        sys.exit(f"stopped at a snapshot; the same command goes on from there (full log: {log_path})")
    return result


def _next_line(process: subprocess.Popen) -> str:
    while True:
        try:
            return process.stdout.readline()
        except KeyboardInterrupt:  # caffe got it too: it makes a snapshot and stops
            print("stopping at a snapshot ...")


class Progress:
    """A line on the screen for every loss that is displayed and every test."""

    _LOSS = re.compile(r"Iteration (\d+) \((\S+) iter/s, .*\), loss = (\S+)")
    _ACCURACY = re.compile(r"Test net output #\d+: (\S*accuracy\S*) = (\S+)")

    def __init__(self, max_iter: int):
        self.max_iter = max_iter
        self.start: tuple[float, int] | None = None
        self.stopped = False

    def show(self, line: str) -> None:
        if match := self._LOSS.search(line):
            iteration = int(match[1])
            self.start = self.start or (time.monotonic(), iteration)
            print(f"iteration {iteration}/{self.max_iter}  loss {match[3]}{self._time_left(iteration)}", flush=True)
        elif match := self._ACCURACY.search(line):
            print(f"  test {match[1]} {100 * float(match[2]):.2f} %", flush=True)
        elif "Optimization stopped early." in line:
            self.stopped = True

    def _time_left(self, iteration: int) -> str:
        begun, first = self.start
        if iteration == first:
            return ""
        left = (time.monotonic() - begun) / (iteration - first) * (self.max_iter - iteration)
        return f"  {int(left) // 60}:{int(left) % 60:02d} min left"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solver", type=Path, help="solver.prototxt")
    parser.add_argument("--log", type=Path, help="(beside the solver: train.log)")
    parser.add_argument("--gpu", help="as for `caffe train`: 0, or 0,1, or all")
    args = parser.parse_args()
    try:
        log = train(
            args.solver, args.log or args.solver.with_name("train.log"), [f"--gpu={args.gpu}"] if args.gpu else []
        )
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}")
    if log.final_test_accuracy is not None:
        print(f"final test accuracy: {100 * log.final_test_accuracy:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
