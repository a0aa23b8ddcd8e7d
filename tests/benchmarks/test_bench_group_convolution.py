"""What bench_group_convolution.py writes and refuses; nothing is timed."""

import json

import pytest

from benchmarks import bench_group_convolution as bench
from benchmarks.group_convolution_report import PermutationRow, Row

OF = {"cpu": "CPU", "instructions": "AVX2", "threads": 2, "commit": "a" * 40}


def row(name: str, ms: float = 1.0, command: str = "bench all") -> Row:
    return Row(name, [ms, 2.0], [10.0, 20.0], {}, 0.5, 100.0, 200.0, 2.0, 30.0, 2.0, 10.0, None, command)


def read(folder) -> dict:
    return json.loads((folder / "group_convolution.json").read_text())


def test_blocks_that_the_same_code_was_timed_for_stay(tmp_path):
    bench.write_results([row("a"), row("b")], [PermutationRow("p", [1.0, 1.0], 0.5, [0.5, 0.5], "x")], OF, tmp_path)
    bench.write_results([row("b", 7.0, "bench b")], [], OF, tmp_path)
    assert [(one["name"], one["ours"][0]) for one in read(tmp_path)["rows"]] == [("a", 1.0), ("b", 7.0)]
    text = (tmp_path / "group_convolution.md").read_text()
    assert "`bench all`, `bench b`." in text and "\n| a | 1.00 / 2.00 " in text and "\n| p | 1.000" in text
    bench.write_results([row("c")], [], OF | {"commit": "b" * 40}, tmp_path)
    assert [one["name"] for one in read(tmp_path)["rows"]] == ["c"] and not read(tmp_path)["permutations"]


def test_a_pattern_that_no_block_begins_with_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", "igcv9", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        bench.main()
    assert "no block begins with 'igcv9'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_each_block_is_written_when_it_is_timed(tmp_path, monkeypatch):
    """A block that breaks off ends the run, and those before are there."""

    def time(name, *_):
        if name == "igcv2-c64-down1":
            raise SystemExit("error")
        return row(name)

    monkeypatch.setattr(bench, "bench", time)
    monkeypatch.setattr(bench.os, "execve", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["bench", "igcv2-c64", "--torch-modes", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="error"):
        bench.main()
    assert [one["name"] for one in read(tmp_path)["rows"]] == ["igcv2-c64-stage1", "igcv2-c64-shortcut1"]
