"""run.py as its users start it, with the real Caffe, on a copy of the project with a tiny data set and catalogue."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.caffe_log import read_log
from experiments.records import read_record
from experiments.run import given_threads
from experiments.train import newest_snapshot
from prototxt_gen.command_line import Invalid

ENDLESS = 10_000  # epochs, of ten iterations each: minutes, of a run that is stopped


def command(*args):
    return [sys.executable, "experiments/run.py", *map(str, args)]


def run(project, *args):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*args), cwd=project, env=env, capture_output=True, text=True)


def start(project, *args) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(*args), cwd=project, env=env, stdout=subprocess.PIPE, text=True)


def record(project, name):
    return read_record(project / f"experiments/results/{name}.json")


def test_several_runs_are_trained_and_recorded_and_not_trained_again(project):
    result = run(project, "table4/a", "table4/b", "table6/a", "--seeds", 2, "--epochs", 2, "--jobs", 2)
    assert result.returncode == 0, result.stderr
    assert "table6/a is the same network as table4/a" in result.stdout
    records = sorted(path.relative_to(project).as_posix() for path in project.glob("experiments/results/**/*.json"))
    assert records == [f"experiments/results/table4/{n}/seed{s}_e2.json" for n in "ab" for s in (1, 2)]
    first, second = (record(project, f"table4/a/seed{seed}_e2") for seed in (1, 2))
    assert f"table4/a/seed1_e2: final test accuracy {first.test_accuracy:.2f} %" in result.stdout
    assert "table4/b/seed2_e2: iteration 19/20" in result.stdout and " images/s  loss " in result.stdout
    assert (first.iterations, first.batch_size, first.paper_epochs, first.resumed) == (20, 64, 40, 0)
    assert first.curve["test_accuracy"][-1] == [20, first.test_accuracy]
    assert first.curve["train_loss"] != second.curve["train_loss"]
    assert first.command[:2] == ["caffe", "train"] and first.hardware["threads"] == 1
    log = project / "experiments/runs/table4/a/seed1_e2/train.log"
    assert first.test_loss == read_log(log).test["loss"][-1][1]
    stamps = re.findall(r"^I\d+ (\d\d):(\d\d):(\d\d\.\d+) ", log.read_text(), re.MULTILINE)
    begin, end = (3600 * int(h) + 60 * int(m) + float(s) for h, m, s in (stamps[0], stamps[-1]))
    assert first.train_seconds == pytest.approx((end - begin) % 86400, abs=0.051)  # it has one digit behind the point
    before = (project / "experiments/results/table4/a/seed1_e2.json").read_text()
    again = run(project, "table4/a", "--seed", 1, "--epochs", 2)
    assert again.returncode == 0 and again.stdout.startswith(f"table4/a/seed1_e2: done, {first.test_accuracy:.2f} %")
    assert (project / "experiments/results/table4/a/seed1_e2.json").read_text() == before


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(project, wait_for_snapshot):
    name = "table4/a/seed1_e40"
    folder = project / "experiments/runs" / name
    assert run(project, "table4/a", "--seed", 1).returncode == 0
    whole = record(project, name)
    shutil.rmtree(folder)
    (project / f"experiments/results/{name}.json").unlink()

    process = start(project, "table4/a", "--seed", 1)
    wait_for_snapshot(name)
    (caffe,) = children(process.pid)
    process.kill()
    os.kill(caffe, signal.SIGKILL)
    process.communicate()
    assert not (project / f"experiments/results/{name}.json").exists()
    with open(folder / "train.log", "a") as log:
        log.write("I20261125 03:00:00.000000   123 solver.cpp:239] Iteration 390 (1 iter/s, 1s/1 iters), loss = 0.0")

    result = run(project, "--resume")
    assert result.returncode == 0, result.stderr
    assert f"{name}: resuming from experiments/runs/{name}/a_iter_" in result.stdout
    resumed = record(project, name)
    assert resumed.resumed == 1
    for key in ("train_accuracy", "test_loss", "test_accuracy"):
        assert resumed.curve[key] == whole.curve[key], key
    pairs = zip(resumed.curve["train_loss"], whole.curve["train_loss"], strict=True)
    # Caffe's average over the last iterations starts anew, and is rounded otherwise
    assert sum(a != pytest.approx(b, rel=1e-4) for a, b in pairs) <= 1
    assert resumed.test_loss == whole.test_loss


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()  # a thread of run.py starts caffe
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def test_ctrl_c_makes_a_snapshot_and_starts_no_other_run(project, wait_for_iterations):
    process = start(project, "table4/a", "table4/b", "--seed", 1, "--epochs", ENDLESS)
    wait_for_iterations(f"table4/a/seed1_e{ENDLESS}")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"table4/a/seed1_e{ENDLESS}: stopped at a snapshot" in output and "table4/b" not in output
    assert not (project / "experiments/results").exists()


def test_a_run_that_fails_leaves_the_others_alone(project):
    result = run(project, "table4/bad", "table4/a", "table4/b", "--seed", 1, "--epochs", 1)
    assert result.returncode == 1
    assert "error: table4/bad/seed1_e1: igcv2: " in result.stderr and "nearest widths" in result.stderr
    assert result.stderr.endswith("1 of 3 trainings failed: table4/bad/seed1_e1\n")
    assert record(project, "table4/a/seed1_e1") and record(project, "table4/b/seed1_e1")


def test_a_training_with_other_settings_is_not_gone_on_with(project, wait_for_iterations):
    folder = project / f"experiments/runs/table4/a/seed1_e{ENDLESS}"
    args = ("table4/a", "--seed", 1, "--epochs", ENDLESS)
    process = start(project, *args)
    wait_for_iterations(f"table4/a/seed1_e{ENDLESS}")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    solver = folder / "solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 0.1", "base_lr: 0.2"))
    result = run(project, *args)
    assert result.returncode == 1 and f"{folder} has snapshots of a training with other settings" in result.stderr


def test_two_trainings_of_one_folder_do_not_meet(project, wait_for_iterations):
    args = ("table4/a", "--seed", 1, "--epochs", ENDLESS)
    process = start(project, *args)
    wait_for_iterations(f"table4/a/seed1_e{ENDLESS}")
    result = run(project, *args)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert result.returncode == 1 and "train.log is being written by a training that still runs" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no run named"),
        (["tabel4/a"], "unknown run 'tabel4/a': did you mean table4/a"),
        (["table4/a", "--seeds", "0"], "seeds 0: at least 1 is needed"),
        (["table4/a", "--epochs", "0"], "epochs 0: more than 0 are needed"),
        (["table4/a", "--jobs", "0"], "--jobs 0: at least 1 is needed"),
        (["--resume"], "none of these runs is begun and unfinished"),
        (["table4/a", "--gpu", "99"], "--gpu 99: "),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(project, args, message):
    result = run(project, *args)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (project / "experiments/runs").exists()


def test_what_was_only_prepared_is_not_resumed(project):
    assert run(project, "table4/a", "--seed", 1, "--epochs", 1, "--prepare").returncode == 0
    result = run(project, "--resume")
    assert result.returncode == 2 and "none of these runs is begun and unfinished" in result.stderr


def test_each_number_of_epochs_has_its_folder(project):
    for epochs in (1234567, 1234568, 1.5):
        assert run(project, "table4/a", "--seed", 1, "--epochs", epochs, "--prepare").returncode == 0
    folders = {path.name for path in (project / "experiments/runs/table4/a").iterdir()}
    assert folders == {"seed1_e1234567", "seed1_e1234568", "seed1_e1.5"}


@pytest.mark.parametrize(("value", "expected"), [("4,2", 4), (" 3", 3), ("", None), (None, None)])
def test_threads_of_nested_regions(monkeypatch, value, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert given_threads() == expected


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_threads_that_are_no_number(monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(Invalid, match=f"OMP_NUM_THREADS={value}: a number from 1 on is needed"):
        given_threads()


def test_missing_and_incomplete_data_name_the_command_that_prepares_it(project):
    facts = project / "data/cifar10/dataset.json"
    facts.write_text(facts.read_text().replace("640", "100"))
    result = run(project, "table4/a")
    assert result.returncode == 2 and "data/cifar10 has train 100 instead of 640" in result.stderr
    shutil.rmtree(project / "data")
    result = run(project, "table4/a")
    assert result.returncode == 2 and result.stderr.endswith("python -m data_prep.cifar --dataset cifar10\n")


def test_a_snapshot_that_was_not_written_to_its_end_is_passed_over(project):
    assert run(project, "table4/a", "--seed", 1, "--epochs", 4).returncode == 0
    folder = project / "experiments/runs/table4/a/seed1_e4"
    prefix, cwd = "experiments/runs/table4/a/seed1_e4/a", Path.cwd()
    assert len(list(folder.glob("*.solverstate"))) > 1
    try:
        os.chdir(project)  # snapshots name their model relative to the project's root
        newest = newest_snapshot(prefix)
        whole = newest.read_bytes()
        for length in (len(whole) - 1, len(whole) - 3, len(whole) // 2, 0):
            newest.write_bytes(whole[:length])
            assert newest_snapshot(prefix) != newest
    finally:
        os.chdir(cwd)
    assert newest.name == "a_iter_40.solverstate"
