"""train.py around the real `caffe train`: log, resuming, errors."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import train
from experiments.caffe_log import read_log
from experiments.run import Queue
from experiments.train import Stopped, Training, batch_size, caffe_binary, newest_snapshot
from prototxt_gen.command_line import Invalid
from prototxt_gen.proto import pb

ROOT = Path(__file__).resolve().parents[2]

NET = """
layer { name: 'data' type: 'DummyData' top: 'data' top: 'label' dummy_data_param {
  shape { dim: 8 dim: 4 } data_filler { type: 'gaussian' }
  shape { dim: 8 } data_filler { type: 'constant' value: 1 } } }
layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc'
        inner_product_param { num_output: 2 weight_filler { type: 'xavier' } } }
layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }
layer { name: 'accuracy' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'accuracy' }
"""
SOLVER = """net: "{folder}/net.prototxt"
base_lr: 0.5 lr_policy: "fixed" random_seed: 1 display: 10 test_iter: 2 test_interval: 20 snapshot: 20
max_iter: {max_iter}
snapshot_prefix: "{folder}/net"
"""

pytestmark = pytest.mark.skipif(
    not (Path(sys.executable).parent / "caffe").exists() and not shutil.which("caffe"), reason="no `caffe` executable"
)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)

    def train(max_iter: int, text: str = SOLVER) -> subprocess.CompletedProcess:
        solver = tmp_path / "solver.prototxt"
        solver.write_text(text.format(folder=tmp_path, max_iter=max_iter))
        return subprocess.run([sys.executable, ROOT / "experiments/train.py", solver], capture_output=True, text=True)

    return train


def test_a_run_goes_on_where_the_one_before_stopped(run, tmp_path):
    first = run(40)
    assert first.returncode == 0, first.stderr
    assert "iteration 30/40  loss " in first.stdout
    assert first.stdout.splitlines()[-1].startswith("final test accuracy: ")
    second = run(80)
    assert f"resuming from {tmp_path}/net_iter_40.solverstate" in second.stdout
    log = read_log(tmp_path / "train.log")
    assert [iteration for iteration, _ in log.smoothed_loss] == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert [iteration for iteration, _ in log.test["accuracy"]] == [0, 20, 40, 60, 80]
    assert log.done and log.final_test_accuracy > 0.9


def test_caffes_error_is_shown(run, tmp_path):
    (tmp_path / "net.prototxt").write_text("layer { name: 'x' type: 'NoSuchLayer' }")
    result = run(10)
    assert result.returncode == 1
    assert "Unknown layer type: NoSuchLayer" in result.stderr and f"full log: {tmp_path}/train.log" in result.stderr


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("snapshot_prefix: '{folder}/my [1] runs/net'", "my [1] runs/net"),
        ('snapshot_prefix: "{folder}/my [1]" " runs/net"', "my [1] runs/net"),
        ("", "solver"),
        ('snapshot_prefix: "{folder}/my [1] runs"', "my [1] runs/solver"),
    ],
)
def test_snapshots_are_found_wherever_caffe_writes_them(run, tmp_path, prefix, expected):
    """Solvers in one line; the log names what the second run goes on from."""
    (tmp_path / "my [1] runs").mkdir()
    solver = SOLVER.replace("\n", " ").partition("snapshot_prefix")[0] + prefix
    for max_iter in (20, 40):
        result = run(max_iter, solver)
        assert result.returncode == 0, result.stderr
    assert f"resuming from {tmp_path}/{expected}_iter_20.solverstate" in result.stdout
    assert [iteration for iteration, _ in read_log(tmp_path / "train.log").smoothed_loss] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOLVER + "snapshot_format: HDF5", "snapshot_format HDF5: only from BINARYPROTO, the default"),
        (SOLVER.replace("max_iter: {max_iter}", ""), "solver.prototxt: no max_iter"),
        (SOLVER + "bse_lr: 1", "solver.prototxt is no solver in prototxt: line 5"),
    ],
)
def test_a_solver_that_cannot_be_gone_on_with_leaves_the_log_alone(run, tmp_path, text, message):
    (tmp_path / "train.log").write_text("of a run before\n")
    result = run(10, text)
    assert result.returncode == 1 and message in result.stderr and result.stderr.count("\n") == 1
    assert (tmp_path / "train.log").read_text() == "of a run before\n"


DATA = """
layer {{ name: "test" type: "AugmentedData" top: "data" include {{ phase: TEST }}
  augmented_data_param {{ batch_size: 100 }} }}
layer {{ name: "train" type: "{type}" top: "data" include {{ phase: TRAIN }} {param} {{ batch_size: 7 }} }}
"""


@pytest.mark.parametrize(
    ("kind", "param"), [("AugmentedData", "augmented_data_param"), ("HDF5Data", "hdf5_data_param")]
)
def test_the_batch_size_is_that_of_the_training_data(tmp_path, kind, param):
    (tmp_path / "net.prototxt").write_text(DATA.format(type=kind, param=param))
    assert batch_size(tmp_path / "net.prototxt") == 7
    (tmp_path / "net.prototxt").write_text(NET)
    assert batch_size(tmp_path / "net.prototxt") is None is batch_size(tmp_path / "none.prototxt")


def test_what_is_stopped_before_it_starts_does_not_start(tmp_path):
    training = Training(tmp_path / "none.prototxt", tmp_path / "train.log")
    training.stop()
    with pytest.raises(Stopped, match="stopped before it started; the same command goes on"):
        training.run()
    assert not (tmp_path / "train.log").exists()


@pytest.mark.parametrize("before", ["", "== begun\nhalf a li", "== \xe9\n"])
def test_a_log_is_gone_on_with_from_its_last_whole_line(tmp_path, monkeypatch, before):
    """A program that prints stands for Caffe; it does not print UTF-8."""
    (tmp_path / "solver.prototxt").write_text(SOLVER.format(folder=tmp_path, max_iter=10))
    (tmp_path / "train.log").write_bytes(before.encode("latin-1"))
    done = "I20261128 00:00:00.000000 1 solver.cpp:1] Optimization Done."
    (tmp_path / "caffe").write_text(f"#!/bin/sh\nprintf '{done}\\n\\351\\n'\n")
    (tmp_path / "caffe").chmod(0o755)
    monkeypatch.setattr(train, "caffe_binary", lambda: str(tmp_path / "caffe"))
    monkeypatch.setattr(train, "newest_snapshot", lambda prefix: tmp_path / "net.solverstate")
    Training(tmp_path / "solver.prototxt", tmp_path / "train.log").run()
    kept = before[: before.rfind("\n") + 1].encode("latin-1")
    log = (tmp_path / "train.log").read_bytes()
    assert log.startswith(kept + b"== 20") and log.endswith("\n\ufffd\n".encode()) and log.count(b"\n== ") < 2


def test_a_log_that_cannot_be_written_is_named(tmp_path, monkeypatch, full_disk):
    """A program that prints without end stands for Caffe."""
    (tmp_path / "solver.prototxt").write_text(SOLVER.format(folder=tmp_path, max_iter=10))
    (tmp_path / "caffe").write_text("#!/bin/sh\nexec yes\n")
    (tmp_path / "caffe").chmod(0o755)
    monkeypatch.setattr(train, "caffe_binary", lambda: str(tmp_path / "caffe"))
    with pytest.raises(Invalid, match=f"cannot write {tmp_path}/train.log: File too large"):
        Training(tmp_path / "solver.prototxt", tmp_path / "train.log").run()


def test_a_stop_before_caffe_catches_signals_is_no_failure(tmp_path, monkeypatch):
    """A program that SIGINT ends stands for Caffe in its first tenth of a second."""
    (tmp_path / "solver.prototxt").write_text(SOLVER.format(folder=tmp_path, max_iter=10))
    (tmp_path / "caffe").write_text("#!/bin/sh\nkill -INT $$\n")
    (tmp_path / "caffe").chmod(0o755)
    monkeypatch.setattr(train, "caffe_binary", lambda: str(tmp_path / "caffe"))
    with pytest.raises(Stopped, match="stopped with no new snapshot; the same command goes on"):
        Training(tmp_path / "solver.prototxt", tmp_path / "train.log").run()


def test_ctrl_c_makes_a_snapshot_however_often_it_comes(run, tmp_path):
    run(20)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER.format(folder=tmp_path, max_iter=10**9).replace("snapshot: 20", "snapshot: 1000000"))
    command = [sys.executable, ROOT / "experiments/train.py", solver]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as training:
        while "iteration" not in training.stdout.readline():
            pass
        for _ in range(5):
            training.send_signal(signal.SIGINT)
        output, errors = training.communicate(timeout=60)
    assert training.returncode == 1 and "stopping at a snapshot ..." in output
    assert errors.count("\n") == 1 and "stopped at a snapshot; the same command goes on from there" in errors
    stopped_at = read_log(tmp_path / "train.log").smoothed_loss[-1][0]
    assert int(newest_snapshot(f"{tmp_path}/net").stem.rpartition("_")[2]) >= stopped_at > 20


@pytest.mark.parametrize("said", ["Test interrupted.", "Optimization stopped early."])
def test_a_stop_is_a_stop_in_a_test_too(tmp_path, monkeypatch, said):
    """As Caffe logs it: "Optimization Done." comes nevertheless."""
    lines = ["Iteration 40, Testing net (#0)", said, "Optimization Done."]
    stamped = "".join(f"I20261128 00:00:00.000000 1 solver.cpp:1] {line}\n" for line in lines)
    (tmp_path / "caffe").write_text(f"#!/bin/sh\ncat <<'END'\n{stamped}END\n")
    (tmp_path / "caffe").chmod(0o755)
    monkeypatch.setattr(train, "caffe_binary", lambda: str(tmp_path / "caffe"))
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER.format(folder=tmp_path, max_iter=40))
    with pytest.raises(Stopped, match="stopped at a snapshot"):
        Training(tmp_path / "solver.prototxt", tmp_path / "train.log").run()
    assert not read_log(tmp_path / "train.log").done


def test_a_queue_that_is_stopped_while_a_run_is_prepared_stops_it_too():
    stopped = []

    class SlowJob:
        name = "slow"

        def train(self, started):
            queue.stop()
            started(SimpleNamespace(stop=lambda: stopped.append(self.name)))
            raise Stopped("stopped before it started")

    queue = Queue()
    queue.train(SlowJob())
    assert stopped == ["slow"] and not queue.failed and not queue.running


def test_a_run_that_fails_in_a_way_of_its_own_is_named(capsys):
    def fail(started):
        raise IndexError("list index out of range")

    queue = Queue()
    queue.train(SimpleNamespace(name="table4/a/seed1_e1", train=fail))
    assert queue.failed == ["table4/a/seed1_e1"]
    assert capsys.readouterr().err == "error: table4/a/seed1_e1: IndexError('list index out of range')\n"


def test_the_newest_snapshot_is_that_of_the_highest_iteration(tmp_path):
    assert newest_snapshot(str(tmp_path / "net")) is None
    model = tmp_path / "net.caffemodel"
    content = pb.NetParameter(layer=[pb.LayerParameter(name="fc", type="InnerProduct")]).SerializeToString()
    model.write_bytes(content)
    for name in ("net_iter_900.solverstate", "net_iter_1000.solverstate", "other_iter_2000.solverstate"):
        state = pb.SolverState(iter=1, learned_net=str(model), current_step=0)
        (tmp_path / name).write_bytes(state.SerializeToString())
    assert newest_snapshot(str(tmp_path / "net")).name == "net_iter_1000.solverstate"
    for cut in (content[:-1], b""):  # by a kill while the same snapshot was written once more
        model.write_bytes(cut)
        assert newest_snapshot(str(tmp_path / "net")) is None
    model.unlink()
    assert newest_snapshot(str(tmp_path / "net")) is None  # without its model it is of no use
    assert Path(caffe_binary()).exists()
