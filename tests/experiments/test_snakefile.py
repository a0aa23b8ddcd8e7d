"""The workflow: what it would do for the whole catalogue, and real trainings with one of them killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.catalogue import catalogue
from experiments.records import read_record

pytest.importorskip("snakemake", reason="snakemake is not installed: pip install '.[experiments]'")
ROOT = Path(__file__).resolve().parents[2]


def snakemake(*args) -> list[str]:
    return [sys.executable, "-m", "snakemake", "-s", "experiments/Snakefile", "--cores", "2", *args]


def test_the_whole_catalogue_is_planned_from_data_to_report():
    result = subprocess.run(
        snakemake("-n", "--forceall", "--quiet", "rules", "--config", "seeds=2"),
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", result.stdout + result.stderr, re.MULTILINE))
    trainings = 2 * sum(not run.same_as for run in catalogue().values())
    assert jobs == {"lmdb": "3", "prototxt": str(trainings), "train": str(trainings), "report": "1",
                    "total": str(2 * trainings + 4)}  # fmt: skip


@pytest.mark.parametrize("setting", ["seeds=0", "epochs=0"])
def test_nothing_to_train_is_an_error(setting):
    result = subprocess.run(snakemake("-n", "--config", setting), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and f"{setting.replace('=', ' ')}: " in result.stdout + result.stderr


def test_runs_in_parallel_one_killed_and_gone_on_with(project, wait_for_snapshot):
    command = snakemake("records", "--config", "runs=table4/a table4/b", "seeds=1", "epochs=100")
    first = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_snapshot("table4/a/seed1_e100")
    os.kill(caffe_of(project, "table4/a/seed1_e100"), signal.SIGKILL)
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 1 and "table4/a/seed1_e100: caffe: killed by SIGKILL" in output
    results = project / "experiments/results/table4"
    assert not (results / "a").exists() or not list((results / "a").iterdir())
    assert read_record(results / "b/seed1_e100.json").resumed == 0  # the other one is left alone

    second = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "table4/a/seed1_e100: resuming from" in second.stdout and "table4/b" not in second.stdout
    assert read_record(results / "a/seed1_e100.json").resumed == 1
    third = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert third.returncode == 0 and "Nothing to be done" in third.stdout + third.stderr


def caffe_of(project: Path, name: str) -> int:
    """The process that trains a run."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == project and name in (process / "cmdline").read_text().split("\0")[2]:
                return int(process.name)
        except (OSError, IndexError):
            continue  # ended in between, or another program
    raise AssertionError(f"{name} is not being trained")
