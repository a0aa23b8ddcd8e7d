"""A training run stopped at any moment and resumed gives, to the last bit, what one that was never stopped gives."""

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

RECORDS, BATCH, ITERATIONS, SNAPSHOT = 330, 32, 200, 50  # an epoch is no whole number of batches

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
        self.solver = folder / "solver.prototxt"
        numbers = {"iterations": ITERATIONS, "snapshot": SNAPSHOT}
        self.solver.write_text(SOLVER.format(net=folder / "net.prototxt", prefix=folder / "s", more=more, **numbers))
        self.log = ""

    def start(self, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [str(self.command), "train", f"--solver={self.solver}", *arguments]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

    def run(self, *arguments: str) -> None:
        process = self.start(*arguments)
        self.log += process.communicate()[1]
        assert process.returncode == 0, self.log[-2000:]

    def run_until(self, iteration: int, signal_number: int) -> int:
        """Sends the signal once the log shows the iteration; returns the exit status."""
        process = self.start()
        for line in process.stderr:
            self.log += line
            if f"Iteration {iteration} " in line:
                process.send_signal(signal_number)
                break
        self.log += process.communicate()[1]
        return process.returncode

    def losses(self) -> dict[int, str]:
        """What the log shows at each iteration; later lines replace earlier ones."""
        found = re.findall(r"Iteration (\d+) \(.*\), loss = (\S+)", self.log)
        return {int(iteration): loss for iteration, loss in found}

    def tests(self) -> dict[int, list[str]]:
        """The test net's outputs at each test."""
        blocks = re.findall(r"Iteration (\d+), Testing net.*\n((?:.*Test net output.*\n|.*Blocking.*\n)+)", self.log)
        return {int(iteration): re.findall(r"= (\S+)", block) for iteration, block in blocks}

    def snapshot(self, iteration: int, kind: str) -> Path:
        return self.folder / f"s_iter_{iteration}.{kind}"


def weights(path: Path) -> list[np.ndarray]:
    from caffe.proto.caffe_pb2 import NetParameter

    net = NetParameter.FromString(path.read_bytes())
    return [np.array(blob.data, np.float32) for layer in net.layer for blob in layer.blobs]


def history(path: Path) -> list[np.ndarray]:
    from caffe.proto.caffe_pb2 import SolverState

    return [np.array(blob.data, np.float32) for blob in SolverState.FromString(path.read_bytes()).history]


def same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def assert_same_end(a: Training, b: Training) -> None:
    assert a.losses() == b.losses() and len(a.losses()) >= ITERATIONS
    assert a.tests() == b.tests() and len(a.tests()) == ITERATIONS // 40 + 1
    model, state = (f"s_iter_{ITERATIONS}.{kind}" for kind in ("caffemodel", "solverstate"))
    assert same_bits(weights(a.folder / model), weights(b.folder / model))
    assert same_bits(history(a.folder / state), history(b.folder / state))


@pytest.mark.parametrize("more", ["", "iter_size: 2 clip_gradients: 0.5"])
def test_killed_and_resumed(tmp_path, caffe_command, source, more):
    whole = Training(tmp_path / "whole", caffe_command, source, more)
    whole.run()
    killed = Training(tmp_path / "killed", caffe_command, source, more)
    assert killed.run_until(SNAPSHOT + 7, signal.SIGKILL) == -signal.SIGKILL
    assert not killed.snapshot(ITERATIONS, "caffemodel").exists()
    killed.run(f"--snapshot={killed.snapshot(SNAPSHOT, 'solverstate')}")
    assert_same_end(whole, killed)


def test_interrupted_by_control_c_and_resumed(tmp_path, caffe_command, source):
    whole = Training(tmp_path / "whole", caffe_command, source)
    whole.run()
    stopped = Training(tmp_path / "stopped", caffe_command, source)
    assert stopped.run_until(SNAPSHOT + 7, signal.SIGINT) == 0
    (last,) = (
        path for path in stopped.folder.glob("*.solverstate") if path != stopped.snapshot(SNAPSHOT, path.suffix[1:])
    )
    assert 0 < int(re.search(r"_iter_(\d+)", last.name)[1]) < ITERATIONS
    stopped.run(f"--snapshot={last}")
    assert_same_end(whole, stopped)


def test_resumed_from_hdf5(tmp_path, caffe_command, source):
    whole = Training(tmp_path / "whole", caffe_command, source)
    whole.run()
    other = Training(tmp_path / "other", caffe_command, source, "snapshot_format: HDF5")
    assert other.run_until(SNAPSHOT + 7, signal.SIGKILL) == -signal.SIGKILL
    other.run(f"--snapshot={other.snapshot(SNAPSHOT, 'solverstate.h5')}")
    assert whole.losses() == other.losses()
    assert whole.tests() == other.tests()


def test_every_batch_and_loss_after_a_restore(tmp_path, caffe_command, source):
    """The same through pycaffe, where batches and losses can be compared exactly."""
    import caffe

    training = Training(tmp_path / "run", caffe_command, source)

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
