"""What the benchmarks say of where their results come from."""

import json
import subprocess

import pytest

from benchmarks.bench_report import ROOT, commit, described, origin, this_command
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
