"""A training run stopped at any moment and resumed gives, to the last bit, what one that was never stopped gives."""

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

RECORDS, BATCH, ITERATIONS, SNAPSHOT = 330, 32, 200, 50  # an epoch is no whole number of batches
ENDLESS = 10**6  # iterations of a run that is stopped: it cannot end before, however late the signal comes

NET = """
layer {{ name: "data" type: "AugmentedData" top: "data" top: "label" include {{ phase: TRAIN }}
  augmented_data_param {{ source: "{source}" batch_size: {batch} crop_size: 16 pad: 2 mirror: true mean: 127 std: 60
    seed: 3 threads: 2 }} }}
layer {{ name: "data" type: "AugmentedData" top: "data" top: "label" include {{ phase: TEST }}
  augmented_data_param {{ source: "{source}" batch_size: {batch} mean: 127 std: 60 }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 16 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param {{ moving_average_fraction: 0.9 }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""

# test_iter x batch is not the number of records either: every test starts at the first record all the same.
SOLVER = """
net: "{net}" base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.001 type: "Nesterov" random_seed: 1
max_iter: {iterations} display: 1 test_iter: 3 test_interval: 40 snapshot: {snapshot} snapshot_prefix: "{prefix}"
solver_mode: CPU {more}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_lmdb) -> Path:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (RECORDS, 3, 16, 16))
    return write_lmdb(tmp_path_factory.mktemp("resume") / "lmdb", images, random.integers(0, 10, RECORDS))


class Training:
    """`caffe train` in a folder of its own."""

    def __init__(self, folder: Path, command: Path, source: Path, more: str = ""):
        folder.mkdir()
        self.folder, self.command = folder, command
        (folder / "net.prototxt").write_text(NET.format(source=source, batch=BATCH))
        self.solver, self.more = folder / "solver.prototxt", more
        self.log = ""

    def write_solver(self, iterations: int) -> None:
        paths = {"net": self.folder / "net.prototxt", "prefix": self.folder / "s"}
        self.solver.write_text(SOLVER.format(iterations=iterations, snapshot=SNAPSHOT, more=self.more, **paths))

    def start(self, iterations: int, *arguments: str) -> subprocess.Popen:
        self.write_solver(iterations)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [str(self.command), "train", f"--solver={self.solver}", *arguments]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, iterations: int, *arguments: str) -> None:
        process = self.start(iterations, *arguments)
        self.log += process.communicate()[1]
        assert process.returncode == 0, self.log[-2000:]

    def run_until(self, iteration: int, signal_number: int) -> int:
        """Sends the signal once the log shows the iteration; returns the exit status."""
        process = self.start(ENDLESS)
        for line in process.stderr:
            self.log += line
            if f"Iteration {iteration} " in line:
                process.send_signal(signal_number)
                break
        self.log += process.communicate()[1]
        return process.returncode

    def losses(self, end: int) -> dict[int, str]:
        """What the log shows at each iteration before the end; later lines replace earlier ones."""
        found = re.findall(r"Iteration (\d+) \(.*\), loss = (\S+)", self.log)
        return {int(iteration): loss for iteration, loss in found if int(iteration) < end}

    def tests(self, end: int) -> dict[int, list[str]]:
        """The test net's outputs at each test to the end."""
        blocks = re.findall(r"Iteration (\d+), Testing net.*\n((?:.*Test net output.*\n|.*Blocking.*\n)+)", self.log)
        return {int(iteration): re.findall(r"= (\S+)", block) for iteration, block in blocks if int(iteration) <= end}

    def snapshot(self, iteration: int, kind: str) -> Path:
        return self.folder / f"s_iter_{iteration}.{kind}"

    def last_snapshot(self) -> int:
        """The iteration of the newest."""
        return max(int(re.search(r"_iter_(\d+)", path.name)[1]) for path in self.folder.glob("*.solverstate"))


def weights(path: Path) -> list[np.ndarray]:
    from caffe.proto.caffe_pb2 import NetParameter

    net = NetParameter.FromString(path.read_bytes())
    return [np.array(blob.data, np.float32) for layer in net.layer for blob in layer.blobs]


def history(path: Path) -> list[np.ndarray]:
    from caffe.proto.caffe_pb2 import SolverState

    return [np.array(blob.data, np.float32) for blob in SolverState.FromString(path.read_bytes()).history]


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def assert_same_log(a: Training, b: Training, end: int) -> None:
    assert a.losses(end) == b.losses(end) and len(a.losses(end)) == end
    assert a.tests(end) == b.tests(end) and len(a.tests(end)) == end // 40 + 1


def assert_same_end(a: Training, b: Training, end: int) -> None:
    assert_same_log(a, b, end)
    models, states = ([one.snapshot(end, kind) for one in (a, b)] for kind in ("caffemodel", "solverstate"))
    assert same_bits(*map(weights, models))
    assert same_bits(*map(history, states))


@pytest.mark.parametrize("more", ["", "iter_size: 2 clip_gradients: 0.5"])
def test_killed_and_resumed(tmp_path, caffe_command, source, more):
    whole = Training(tmp_path / "whole", caffe_command, source, more)
    whole.run(ITERATIONS)
    killed = Training(tmp_path / "killed", caffe_command, source, more)
    assert killed.run_until(SNAPSHOT + 7, signal.SIGKILL) == -signal.SIGKILL
    killed.run(ITERATIONS, f"--snapshot={killed.snapshot(SNAPSHOT, 'solverstate')}")
    assert_same_end(whole, killed, ITERATIONS)


def test_interrupted_by_control_c_and_resumed(tmp_path, caffe_command, source):
    stopped = Training(tmp_path / "stopped", caffe_command, source)
    assert stopped.run_until(SNAPSHOT + 7, signal.SIGINT) == 0
    last = stopped.last_snapshot()
    assert SNAPSHOT + 7 <= last < ENDLESS
    end = last + ITERATIONS
    stopped.run(end, f"--snapshot={stopped.snapshot(last, 'solverstate')}")
    whole = Training(tmp_path / "whole", caffe_command, source)
    whole.run(end)
    assert_same_end(whole, stopped, end)


def test_resumed_from_hdf5(tmp_path, caffe_command, source):
    whole = Training(tmp_path / "whole", caffe_command, source)
    whole.run(ITERATIONS)
    other = Training(tmp_path / "other", caffe_command, source, "snapshot_format: HDF5")
    assert other.run_until(SNAPSHOT + 7, signal.SIGKILL) == -signal.SIGKILL
    other.run(ITERATIONS, f"--snapshot={other.snapshot(SNAPSHOT, 'solverstate.h5')}")
    assert_same_log(whole, other, ITERATIONS)


def test_every_batch_and_loss_after_a_restore(tmp_path, caffe_command, source):
    """The same through pycaffe, where batches and losses can be compared exactly."""
    import caffe

    training = Training(tmp_path / "run", caffe_command, source)
    training.write_solver(ITERATIONS)

    def steps(solver, count):
        seen = []
        for _ in range(count):
            solver.step(1)
            seen.append([solver.net.blobs[name].data.tobytes() for name in ("data", "label", "loss")])
        return seen

    first = caffe.get_solver(str(training.solver))
    steps(first, 13)
    first.snapshot()
    expected = steps(first, 30)
    assert len({data for data, *_ in expected}) == 30  # batches all differ
    second = caffe.get_solver(str(training.solver))
    steps(second, 4)  # a solver that is elsewhere already
    second.restore(str(training.snapshot(13, "solverstate")))
    assert steps(second, 30) == expected
