"""What the report refuses: results of several commits or of uncommitted code, strange records, a missing Jinja2."""

import dataclasses
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from report_records import OTHER, OURS, SOME, make, record

from experiments import report
from experiments.records import Record, write_record
from experiments.report_results import collect
from prototxt_gen.command_line import Invalid

pytest.importorskip("jinja2")

ROOT = Path(__file__).resolve().parents[2]


def run(*args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "experiments/report.py", *args], capture_output=True, text=True)


def fails(folder: Path, records: list[Record], *options: str) -> str:
    """The one line of the error."""
    for one in records:
        write_record(one, folder)
    result = run("--results", folder, *options)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and not (folder / "report.html").exists()
    return result.stderr


def test_two_commits_in_one_table_are_an_error_that_says_what_to_do(tmp_path):
    error = fails(tmp_path, [record(OURS), record(OTHER, commit="b" * 40)])
    assert "table4: results of 2 commits mixed" in error
    assert all(word in error for word in ("aaaaaaaaaa", "bbbbbbbbbb", OURS, OTHER, "--allow-mixed-commits"))


def test_a_tables_commits_are_those_of_what_it_shows():
    """Table 7 shows the run of table 3, figure 3 that of table 2."""
    records = [
        record("table3/igcv2star_c416_d20_cifar100"),
        record("table7/igcv2star_c416_d20_cifar10", commit="b" * 40),
        record("figure4/igcv2star_c112_d20_cifar100", commit="b" * 40),
    ]
    with pytest.raises(Invalid, match="table7: results of 2 commits") as error:
        report.check_sources(collect(records), allowed=False)
    assert "table3:" not in str(error.value) and "figure4:" not in str(error.value)
    assert report.check_sources(collect(SOME), allowed=False) == []


def test_uncommitted_code_is_an_error(tmp_path):
    assert "table4: results of uncommitted code" in fails(tmp_path, [record(OURS, dirty=True)])


def test_mixed_commits_can_be_allowed_and_are_then_named(tmp_path, no_pictures):
    page = make(tmp_path, [record(OURS), record(OTHER, commit="b" * 40)], "--allow-mixed-commits")
    assert "<b>Mixed commits</b> in table4: results of 2 commits mixed" in page
    assert "**Mixed commits** in table4" in (tmp_path / "report.md").read_text()


def test_a_record_of_no_run_is_an_error_with_the_nearest(tmp_path):
    error = fails(tmp_path, [dataclasses.replace(record(OURS), name="table4/igcv2_c64_d9_cifar100")])
    assert "unknown run 'table4/igcv2_c64_d9_cifar100'" in error and OURS in error


def test_a_record_of_another_network_is_an_error(tmp_path):
    error = fails(tmp_path, [record(OURS, params=1)])
    assert f"{OURS}/seed1_e10.json: its network has 1 params" in error and "train the run again" in error


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    result = run("--results", tmp_path / "none")
    assert result.returncode == 2 and "no such folder" in result.stderr


def test_without_jinja2_the_error_says_how_to_get_it(tmp_path, monkeypatch, capsys, no_pictures):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert report.main(["--results", str(tmp_path)]) == 2
    assert "pip install 'caffe-igc[experiments]'" in capsys.readouterr().err


def test_the_installed_package_has_the_templates():
    try:
        files = importlib.metadata.files("caffe-igc")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("caffe-igc is not installed")
    names = {str(file) for file in files}
    assert {f"experiments/templates/report.{kind}" for kind in ("html", "md", "css")} <= names
