"""Records: written whole, never overwritten, checked when read; results of two commits are not mixed."""

import json
from dataclasses import replace

import pytest

from experiments.records import CURVES, Record, check_commits, read_record, read_records, thin_out, write_record
from prototxt_gen.command_line import Invalid

RECORD = Record(
    name="table4/igcv2_c64_d8_cifar100", seed=1, epochs=10, paper_epochs=400, iterations=7813, batch_size=64,
    arch="igcv2", dataset="cifar100", params=46720, flops=9478144, test_accuracy=55.5, test_loss=1.6,
    curve={key: [[0, 1.5], [100, 2.5]] for key in CURVES}, train_seconds=1000.5, resumed=0,
    started="2026-11-25T02:30:00Z", finished="2026-11-25T02:50:00Z", commit="a" * 40, dirty=False, command=["caffe"],
    prototxt={}, hardware={}, versions={},
)  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    other = replace(RECORD, seed=2, epochs=0.5, test_accuracy=50.0)
    assert write_record(RECORD, tmp_path) == tmp_path / "table4/igcv2_c64_d8_cifar100/seed1_e10.json"
    assert write_record(other, tmp_path).name == "seed2_e0.5.json"
    assert read_records(tmp_path) == [other, RECORD]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json"}
    assert json.loads((tmp_path / RECORD.path).read_text())["curve"]["test_loss"] == [[0, 1.5], [100, 2.5]]


def test_a_record_is_never_overwritten(tmp_path):
    path = write_record(RECORD, tmp_path)
    with pytest.raises(Invalid, match="is there already"):
        write_record(replace(RECORD, test_accuracy=99.0), tmp_path)
    assert read_record(path) == RECORD


def test_a_record_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path, full_disk):
    with pytest.raises(Invalid, match=f"cannot write {tmp_path / RECORD.path}: File too large"):
        write_record(replace(RECORD, command=["caffe"] * 1000), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "1"}, "seed is '1' instead of a int"),
        ({"seed": True}, "seed is True instead of a int"),
        ({"test_accuracy": 101.0}, "test_accuracy is 101.0, not a percentage"),
        ({"train_seconds": -0.5}, "train_seconds is -0.5, a negative time"),
        ({"curve": {}}, "curve train_loss is no list"),
        ({"curve": {key: [[1]] for key in CURVES}}, "curve train_loss is no list"),
        ({"seed": 2}, "holds the record of table4/igcv2_c64_d8_cifar100/seed2_e10.json"),
        ({"colour": "red"}, "unknown: colour"),
    ],
)
def test_a_wrong_record_is_named(tmp_path, change, message):
    path = write_record(RECORD, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(Invalid, match=message) as error:
        read_records(tmp_path)
    assert str(path) in str(error.value)


def test_a_record_that_is_cut_short_or_lacks_a_key_is_named(tmp_path):
    path = write_record(RECORD, tmp_path)
    whole = path.read_text()
    path.write_text(whole[:100])
    with pytest.raises(Invalid, match="is no JSON"):
        read_record(path)
    path.write_text(json.dumps({key: value for key, value in json.loads(whole).items() if key != "flops"}))
    with pytest.raises(Invalid, match="lacks flops"):
        read_record(path)


def test_commits_are_not_mixed():
    check_commits("table4", [RECORD, replace(RECORD, seed=2)])
    with pytest.raises(Invalid, match=r"table4: results of 2 commits mixed: aaaaaaaaaa \(1, such as .*bbbbbbbbbb"):
        check_commits("table4", [RECORD, replace(RECORD, seed=2, commit="b" * 40)])
    with pytest.raises(Invalid, match="table4: results of uncommitted code"):
        check_commits("table4", [replace(RECORD, dirty=True)])
    with pytest.raises(Invalid, match=r"2 commits mixed: aaaaaaaaaa\+bbbbbbbbbb \(1"):  # resumed under another commit
        check_commits("table4", [replace(RECORD, resumed=1, commit="a" * 40 + "+" + "b" * 40)])


def test_curves_are_thinned_out_to_their_end():
    points = [(i, i / 3) for i in range(3126)]
    thin = thin_out(points, 100)
    assert 150 < len(thin) <= 200 and thin[-1] == [3125, float(f"{312500 / 3:.6g}")]
    assert len({b[0] - a[0] for a, b in zip(thin, thin[1:], strict=False)}) == 1
    assert thin_out(points[:7]) == [[i, float(f"{v:.6g}")] for i, v in points[:7]] and thin_out([]) == []
