#!/usr/bin/env python3
"""Runs `caffe train` for a solver, from its newest snapshot if there is one, with a line of progress now and then.

The full log goes to a file; a resumed training adds to the log of the run before. Ctrl-C makes a snapshot and stops.
"""

import argparse
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.message import DecodeError

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments import machine
from experiments.caffe_log import CaffeLog, read_log
from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import included
from prototxt_gen.files import file_errors
from prototxt_gen.proto import pb, read_net, read_solver

ATTEMPT = "== "  # begins the line that each start of caffe leaves in the log, with time, code and command


class TrainingError(RuntimeError):
    """Why a training did not reach its end, in one line."""


class Stopped(TrainingError):
    """It was asked to stop, and did; the same command goes on."""


def snapshot_prefix(path: Path, solver: "pb.SolverParameter") -> str:
    """As Caffe takes it: of a solver that gives none, or a folder, the solver's name is (part of) it."""
    if not solver.HasField("snapshot_prefix"):
        return str(path.with_suffix(""))
    given = Path(solver.snapshot_prefix)
    return str(given / path.stem if given.is_dir() else given)


def batch_size(net: Path) -> int | None:
    """Of the training data; None where the net does not say, or cannot be read, of which Caffe says why."""
    try:
        layers = [layer for layer in read_net(net).layer if included(layer, "TRAIN")]
    except Invalid:
        return None
    params = (param for layer in layers for _, param in layer.ListFields())
    return next((param.batch_size for param in params if getattr(param, "batch_size", 0)), None)


def newest_snapshot(prefix: str) -> Path | None:
    """PREFIX_iter_N.solverstate with the largest N of those that were written to their end."""
    found, name = {}, re.escape(Path(prefix).name)
    for path in Path(prefix).parent.glob("*.solverstate"):
        if match := re.fullmatch(rf"{name}_iter_(\d+)\.solverstate", path.name):
            found[int(match[1])] = path
    return next((found[iteration] for iteration in sorted(found, reverse=True) if _complete(found[iteration])), None)


def _complete(snapshot: Path) -> bool:
    """Caffe writes the model, then the state, whose last field is current_step: a kill in between leaves less.

    The model may have been cut short later too, when a run that went on wrote this snapshot once more.
    """
    state = _parsed(pb.SolverState, snapshot)
    if state is None or not state.HasField("current_step") or not Path(state.learned_net).exists():
        return False
    model = _parsed(pb.NetParameter, Path(state.learned_net))
    return model is not None and len(model.layer) > 0


def _parsed(kind, path: Path):
    """The message in a file; None if it ends too early."""
    with file_errors("read", path):
        content = path.read_bytes()
    try:
        return kind.FromString(content)
    except DecodeError:
        return None


def caffe_binary() -> str:
    """The `caffe` beside this Python, or on PATH. Raises TrainingError if there is none."""
    found = shutil.which("caffe", path=str(Path(sys.executable).parent)) or shutil.which("caffe")
    if not found:
        raise TrainingError("there is no `caffe` executable: run `make build` or `pip install .`")
    return found


class Training:
    """One training by `caffe train`. label: begins each line of progress, where several run at a time.

    threads: of each process, else as OMP_NUM_THREADS says. gpu: as for `caffe train`: 0, or 0,1, or all.
    """

    def __init__(self, solver: Path, log: Path, gpu: str | None = None, threads: int | None = None, label: str = ""):
        self.solver, self.log, self.label = solver, log, label
        self.options = [f"--gpu={gpu}"] if gpu else []
        self.environment = {**os.environ, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
        if threads:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        self._process: subprocess.Popen | None = None
        self._stopping = False

    def run(self) -> CaffeLog:
        """Trains to the end, and returns the log. Raises TrainingError, Stopped, or Invalid."""
        if self._stopping:
            raise Stopped("stopped before it started; the same command goes on")
        solver = self._read_solver()
        command = [caffe_binary(), "train", f"--solver={self.solver}", *self.options]
        with file_errors("write", self.log), self._open_log() as log:
            self._lock(log)
            if snapshot := newest_snapshot(snapshot_prefix(self.solver, solver)):
                print(f"{self.label}resuming from {snapshot}", flush=True)
                command.append(f"--snapshot={snapshot}")
            _cut(log, whole=snapshot is None)
            log.write(f"{ATTEMPT}{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {machine.code()} {shlex.join(command)}\n")
            progress = Progress(solver.max_iter, batch_size(Path(solver.net or solver.train_net)), self.label)
            status = self._follow(command, log, progress)
        if status == -signal.SIGINT:  # Caffe catches it from shortly after its start to shortly before its end
            raise Stopped(f"stopped with no new snapshot; the same command goes on (full log: {self.log})")
        if status != 0:
            killed = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            raise TrainingError(f"caffe: {progress.fatal or killed} (full log: {self.log})")
        log = read_log(self.log)
        if not log.done:
            raise Stopped(f"stopped at a snapshot; the same command goes on from there (full log: {self.log})")
        return log

    def stop(self) -> None:
        """Caffe makes a snapshot and stops, if it is running; else it does not start."""
        self._stopping = True
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def _open_log(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return open(self.log, "a+", errors="replace")

    def _lock(self, log) -> None:
        """One training for a log. Caffe inherits the lock, so that it holds even where this process was killed."""
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{self.log} is being written by a training that still runs") from None

    def _read_solver(self) -> "pb.SolverParameter":
        solver = read_solver(self.solver)
        if not solver.max_iter:
            raise Invalid(f"{self.solver}: no max_iter")
        if solver.snapshot_format == pb.SolverParameter.HDF5:  # what a kill left of one could not be told from a whole
            raise Invalid(f"{self.solver}: snapshot_format HDF5: only from BINARYPROTO, the default, can a run go on")
        return solver

    def _follow(self, command: list[str], log, progress: "Progress") -> int:
        with file_errors("run", command[0]):
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",  # text, of whatever encoding
                env=self.environment,
                pass_fds=[log.fileno()],
            )
        if self._stopping:
            self.stop()
        with self._process:  # where the log cannot be written, nobody listens to caffe any more, and it ends
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                progress.show(line)
        return self._process.returncode


def _cut(log, whole: bool) -> None:
    """Empties the log, or takes off a last line that a kill cut short."""
    log.seek(0)
    log.truncate(0 if whole else log.buffer.read().rfind(b"\n") + 1)


class Progress:
    """A line on the screen for every loss that is displayed, with the last test's accuracy."""

    _LOSS = re.compile(r"Iteration (\d+) \((\S+) iter/s, .*\), loss = (\S+)")
    _ACCURACY = re.compile(r"(Train|Test) net output #\d+: \S*accuracy\S* = (\S+)")
    _FATAL = re.compile(r"F\d{4,8} .*?\] (.*)")

    def __init__(self, max_iter: int, batch_size: int | None = None, label: str = ""):
        self.max_iter, self.batch_size, self.label = max_iter, batch_size, label
        self.start: tuple[float, int] | None = None
        self.accuracy = ""
        self.fatal = ""

    def show(self, line: str) -> None:
        if match := self._LOSS.search(line):
            iteration = int(match[1])
            speed = f"  {float(match[2]) * self.batch_size:.0f} images/s" if self.start and self.batch_size else ""
            self.start = self.start or (time.monotonic(), iteration)
            print(
                f"{self.label}iteration {iteration}/{self.max_iter}{speed}  loss {match[3]}{self.accuracy}"
                f"{self._time_left(iteration)}",
                flush=True,
            )
        elif (match := self._ACCURACY.search(line)) and match[1] == "Test":
            self.accuracy = f"  test accuracy {100 * float(match[2]):.2f} %"
        elif match := self._FATAL.match(line):
            self.fatal = match[1]

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
    training = Training(args.solver, args.log or args.solver.with_name("train.log"), args.gpu)

    def stop(signal_number, frame):  # no exception: it could come between any two steps, and lose a line of the log
        os.write(sys.stdout.fileno(), b"stopping at a snapshot ...\n")
        training.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        log = training.run()
    except (Invalid, TrainingError) as error:
        sys.exit(f"error: {error}")
    if log.final_test_accuracy is not None:
        print(f"final test accuracy: {100 * log.final_test_accuracy:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
