"""Times Caffe's own commands on a generated net: `caffe train` per step, `caffe time` per layer."""

import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path

from google.protobuf import text_format

from prototxt_gen.proto import pb, read_net


class CaffeFailed(Exception):
    pass


def train_steps(caffe: Path, folder: Path, steps: int, warm_up: int, threads: int) -> tuple[list[float], float]:
    """Milliseconds of each step of `caffe train` (data, forward, backward, update), and its peak memory in MB."""
    solver = text_format.Parse((folder / "solver.prototxt").read_text(), pb.SolverParameter())
    solver.max_iter, solver.display, solver.average_loss = warm_up + steps, 1, 1
    solver.snapshot, solver.snapshot_after_train, solver.test_interval = 0, False, 0
    del solver.test_iter[:]
    short = folder / "bench_solver.prototxt"
    short.write_text(text_format.MessageToString(solver))
    log, memory = run([caffe, "train", "-solver", short], threads)
    seconds = [float(s) for s in re.findall(r"iter/s, ([\d.e+-]+)s/1 iters\)", log)]
    return [1000 * s for s in seconds[warm_up:]], memory


def layer_times(caffe: Path, net: Path, iterations: int, threads: int, phase: str = "TRAIN") -> dict[str, list[float]]:
    """[forward, backward] ms of all layers of each type in a prototxt."""
    types = {layer.name: layer.type for layer in read_net(net).layer}
    log, _ = run([caffe, "time", "-model", net, "-phase", phase, "-iterations", str(iterations)], threads)
    times = defaultdict(lambda: [0.0, 0.0])
    for name, direction, ms in re.findall(r"\]\s+(\S+)\s+(forward|backward): ([\d.e+-]+) ms", log):
        times[types.get(name, "Split")][direction == "backward"] += float(ms)
    return dict(times)


def run(command, threads: int) -> tuple[str, float]:
    """The command's log, and its peak memory in MB. Raises CaffeFailed with the last line of the log."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = next((line for line in log.splitlines() if line.startswith("F")), log.strip().rpartition("\n")[2])
        raise CaffeFailed(f"{' '.join(map(str, command))}: {last}")
    return log, usage.ru_maxrss / 1024
