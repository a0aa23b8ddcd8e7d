"""Times Caffe's own commands on a generated net: `caffe train` per step, `caffe time` per layer."""

import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path

from google.protobuf import text_format

from benchmarks.bench_report import reason
from prototxt_gen.proto import pb, read_net


class CaffeFailed(Exception):
    pass


def train_steps(caffe: Path, folder: Path, steps: int, warm_up: int, threads: int) -> tuple[list[float], float]:
    """Milliseconds of each step of `caffe train` (data, forward, backward, update), and its peak memory in MB."""
    solver = short_solver(folder, warm_up + steps, 1)
    log, memory = run([caffe, "train", "-solver", solver], threads)
    return step_times(log, 1)[warm_up:], memory


def short_solver(folder: Path, iterations: int, display: int, **changes) -> Path:
    """A solver.prototxt beside the folder's own that neither tests nor snapshots, with changes to its fields."""
    solver = text_format.Parse((folder / "solver.prototxt").read_text(), pb.SolverParameter())
    solver.max_iter, solver.display, solver.average_loss = iterations, display, 1
    solver.snapshot, solver.snapshot_after_train, solver.test_interval = 0, False, 0
    del solver.test_iter[:]
    for name, value in changes.items():
        setattr(solver, name, value)
    short = folder / "bench_solver.prototxt"
    short.write_text(text_format.MessageToString(solver))
    return short


def step_times(log: str, display: int) -> list[float]:
    """Milliseconds of a step, in each interval of `display` steps that the log of `caffe train` shows."""
    return [1000 * float(s) / display for s in re.findall(rf"iter/s, ([\d.e+-]+)s/{display} iters\)", log)]


def layer_times(caffe: Path, net: Path, iterations: int, threads: int, phase: str = "TRAIN") -> dict[str, list[float]]:
    """[forward, backward] ms of all layers of each type in a prototxt."""
    types = {layer.name: layer.type for layer in read_net(net).layer}
    log, _ = run([caffe, "time", "-model", net, "-phase", phase, "-iterations", str(iterations)], threads)
    times = defaultdict(lambda: [0.0, 0.0])
    for name, direction, ms in re.findall(r"\]\s+(\S+)\s+(forward|backward): ([\d.e+-]+) ms", log):
        times[types.get(name, "Split")][direction == "backward"] += float(ms)
    return dict(times)


def run(command, threads: int) -> tuple[str, float]:
    """The command's log, and its peak memory in MB. Raises CaffeFailed with the line that says why."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CaffeFailed(f"{' '.join(map(str, command))}: {reason(log)}")
    return log, usage.ru_maxrss / 1024
