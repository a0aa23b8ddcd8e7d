"""What the benchmarks say of where their results come from, and of programs that failed."""

import json
import subprocess
import sys

import pytest

from benchmarks.bench_report import ROOT, commit, described, origin, reason, this_command
from experiments import machine


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository in the place of this one."""
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    (tmp_path / "benchmarks/bench.py").touch()
    name = ["-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "project_root", lambda: tmp_path)
    machine.code.cache_clear()
    yield tmp_path
    machine.code.cache_clear()


def test_results_of_uncommitted_code_say_so(clone):
    head = machine.output("git", "rev-parse", "HEAD")
    (clone / "benchmarks/results/net.json").write_text("{}")  # results may differ
    of = {"cpu": "CPU", "instructions": "AVX2", "threads": 2}
    assert commit() == head and described({**of, "commit": head}).endswith(f"2 threads, commit {head[:10]}")
    machine.code.cache_clear()
    (clone / "benchmarks/bench.py").write_text("changed")
    assert commit() == f"{head}-dirty"
    assert described({**of, "commit": commit()}) == f"CPU, AVX2, 2 threads, commit {head[:10]} with uncommitted changes"
    machine.code.cache_clear()
    assert machine.code() == head  # of a training, which no benchmark is part of


def test_a_caffe_built_from_other_layers_is_seen(clone, monkeypatch):
    layer = clone / "caffe_layers/layers/layer.cpp"
    layer.parent.mkdir(parents=True)
    layer.write_text("old")
    installed = clone / "benchmarks/results/caffe"  # where git does not look
    installed.mkdir()
    (installed / "__init__.py").touch()
    monkeypatch.syspath_prepend(installed.parent)
    monkeypatch.delitem(sys.modules, "caffe", raising=False)
    sums = subprocess.run(["sha256sum", "caffe_layers/layers/layer.cpp"], cwd=clone, capture_output=True, check=True)
    assert machine.caffe_of_other_code() == "caffe_layers/layers/layer.cpp"  # an older one, which does not say
    (installed / "layers.sha256").write_bytes(sums.stdout)
    assert not machine.caffe_of_other_code()
    layer.write_text("new")
    subprocess.run(["git", "add", "."], cwd=clone, check=True)
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"], cwd=clone, check=True)
    assert machine.caffe_of_other_code() == "caffe_layers/layers/layer.cpp"
    assert machine.code() == machine.output("git", "rev-parse", "HEAD") + machine.DIRTY


def test_the_caffe_in_use_is_of_this_code():
    assert not machine.caffe_of_other_code()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx avx2 fma avx512f avx512dq avx512cd avx512bw avx512vl", "AVX-512"),
        ("fpu sse2 avx avx2 fma avx512f avx512cd", "AVX2"),  # as a Xeon Phi, not all that the kernels need
        ("fpu sse2 avx avx2", "baseline"),
        ("", "baseline"),
    ],
)
def test_the_instruction_set_is_that_of_the_kernels(flags, expected):
    assert machine.instructions(flags) == expected
    assert origin(2)["instructions"] in ("AVX-512", "AVX2", "baseline")


def test_a_command_is_that_of_any_checkout(monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["benchmarks/bench_net.py", "--caffe", f"{ROOT}/.venv/bin/caffe", "--out", "my own"]
    )
    assert this_command() == "python benchmarks/bench_net.py --caffe .venv/bin/caffe --out 'my own'"
    assert str(ROOT) not in json.dumps(origin(2))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("I1 a\nF2 file.cpp:1] Check failed\n*** stack\n", "F2 file.cpp:1] Check failed"),
        (
            "Traceback\n  File x\ntorch.AcceleratorError: CUDA error: y\nFor debugging ...\n",
            "torch.AcceleratorError: CUDA error: y",
        ),
        ("run: no library\n", "run: no library"),
        ("", ""),
    ],
)
def test_the_reason_of_a_failure(text, line):
    assert reason(text) == line
