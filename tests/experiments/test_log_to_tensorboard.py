"""Recorded logs of `caffe train`: what the parser and the event files make of them, read back without tensorboardX."""

import math
import os
import re
import struct
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from experiments.caffe_log import parse_log, read_log
from experiments.log_to_tensorboard import main

ROOT = Path(__file__).resolve().parents[2]
LOGS = Path(__file__).parent / "logs"
ALL = sorted(path.name for path in LOGS.glob("*.log"))


def run(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "experiments/log_to_tensorboard.py", *args]
    return subprocess.run(command, capture_output=True, text=True)


def fields(data: bytes):
    """(number, value) of a protobuf message: bytes, or the raw number."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if size is None:
            size = varint()
        yield key >> 3, data[at : at + size] if size or key & 7 == 2 else varint()
        at += size


def crc32c(data: bytes) -> int:
    """Castagnoli's, bit by bit, masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(folder: Path) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    """{(train or test, tag): [(step, value, wall time), ...]} of TFRecord files of Event messages."""
    found = {}
    for path in folder.glob("*/events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = data[12 : 12 + length]
            assert struct.unpack("<I", data[8:12])[0] == crc32c(data[:8])
            assert struct.unpack("<I", data[12 + length : 16 + length])[0] == crc32c(event)
            data = data[16 + length :]
            parts = dict(fields(event))
            for _, value in fields(parts.get(5, b"")):  # Summary
                entry = dict(fields(value))
                point = (parts.get(2, 0), struct.unpack("<f", entry[2])[0], struct.unpack("<d", parts[1])[0])
                found.setdefault((path.parent.name, entry[1].decode()), []).append(point)
    return found


def by_hand(name: str) -> dict[str, list[tuple[int, float]]]:
    """Smoothed losses and test accuracies of a log by a plain scan: later lines replace those of the same iteration."""
    loss, accuracy, at = {}, {}, None
    for line in (LOGS / name).read_text().splitlines():
        if match := re.search(r"\] Iteration (\d+) \(.*loss = (\S+)", line) or re.search(
            r"solver.cpp:327\] Iteration (\d+), loss = (\S+)", line
        ):
            loss[int(match[1])] = float(match[2])
        elif match := re.search(r"Iteration (\d+), Testing", line):
            at = int(match[1])
        elif match := re.search(r"Test net output #\d+: accuracy = (\S+)", line):
            accuracy[at] = float(match[1])
    return {"loss": sorted(loss.items()), "accuracy": sorted(accuracy.items())}


def test_the_recorded_logs_are_what_their_names_say():
    text = {name.removesuffix(".log"): (LOGS / name).read_text() for name in ALL}
    assert set(text) == {"nan", "no_test", "no_year", "resumed"}
    assert re.search(r"^I1125 02:", text["no_year"], re.MULTILINE) and "I2026" not in text["no_year"]
    assert "Test net output" not in text["no_test"] and "Resuming from" in text["resumed"] and "-nan" in text["nan"]


@pytest.mark.parametrize("name", ALL)
def test_a_log_is_read_as_a_plain_scan_reads_it(name):
    log, expected = read_log(LOGS / name), by_hand(name)
    assert repr(log.smoothed_loss) == repr(expected["loss"])  # nan is not equal to itself
    assert log.test.get("accuracy", []) == expected["accuracy"]
    assert log.done
    assert log.train_times.keys() >= dict(log.smoothed_loss).keys()


def test_a_resumed_log_keeps_what_came_before_the_snapshot():
    log = read_log(LOGS / "resumed.log")
    assert [iteration for iteration, _ in log.smoothed_loss] == list(range(0, 161, 10))
    assert log.train_times[70] < log.train_times[80] < log.train_times[160]
    assert log.train_times[80] == datetime(2026, 11, 25, 2, 39, 34, 873209).timestamp()


def test_an_interrupted_log_ends_where_it_was_cut():
    log = parse_log((LOGS / "resumed.log").read_text().partition("\n== ")[0] + "\n")
    assert log.smoothed_loss[-1][0] == 100 and not log.done and log.test["accuracy"][-1][0] == 100


@pytest.mark.parametrize(
    ("written", "year"),
    [((2027, 1, 3), 2026), ((2026, 11, 25), 2026), ((2026, 11, 24, 12), 2026), ((2026, 11, 23), 2025)],
)
def test_a_log_without_years_is_of_the_last_year_that_fits(written, year):
    log = parse_log((LOGS / "no_year.log").read_text(), datetime(*written))
    assert {datetime.fromtimestamp(seconds).year for seconds in log.train_times.values()} == {year}


def test_a_leap_day_without_a_year():
    line = "I0229 12:00:00.000000 1 solver.cpp:239] Iteration 0 (1 iter/s, 1s/10 iters), loss = 1\n"
    assert parse_log(line, datetime(2027, 5, 1)).train_times == {0: datetime(2024, 2, 29, 12).timestamp()}


def test_the_year_comes_from_the_files_time(tmp_path):
    (tmp_path / "run.log").write_text((LOGS / "no_year.log").read_text())
    os.utime(tmp_path / "run.log", (datetime(2020, 12, 1).timestamp(),) * 2)
    assert datetime.fromtimestamp(read_log(tmp_path / "run.log").test_times[0]).year == 2020


@pytest.mark.parametrize("name", ALL)
def test_event_files_hold_the_log(tmp_path, name):
    pytest.importorskip("tensorboardX")
    result = run(LOGS / name, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    events, log = read_events(tmp_path), read_log(LOGS / name)
    outputs = {"loss"} if name == "nan.log" else {"loss", "accuracy"}
    expected = {"train": {"smoothed_loss", "learning_rate", *outputs}, "test": outputs if log.test else set()}
    assert events.keys() == {(phase, tag) for phase, tags in expected.items() for tag in tags}
    for (phase, tag), points in events.items():
        values = {"smoothed_loss": log.smoothed_loss, "learning_rate": log.rate}.get(tag) or getattr(log, phase)[tag]
        times = log.train_times if phase == "train" else log.test_times
        assert [step for step, _, _ in points] == [iteration for iteration, _ in values]
        assert [time for _, _, time in points] == [times[iteration] for iteration, _ in values]
        for (_, found, _), (_, value) in zip(points, values, strict=True):
            assert found == pytest.approx(value, rel=1e-6) or (math.isnan(found) and math.isnan(value))
    assert f"{sum(map(len, events.values()))} values written" in result.stdout


def test_tensorboard_itself_reads_them(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    pytest.importorskip("tensorboardX")
    run(LOGS / "resumed.log", "--out", tmp_path)
    log = read_log(LOGS / "resumed.log")
    events = reader.EventAccumulator(str(tmp_path / "test"))
    events.Reload()
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("accuracy")] == log.test["accuracy"]
    assert [e.wall_time for e in events.Scalars("accuracy")] == list(log.test_times.values())


def test_event_files_are_not_doubled(tmp_path):
    pytest.importorskip("tensorboardX")
    log = tmp_path / "run.log"
    log.write_text((LOGS / "no_test.log").read_text())
    assert run(log).returncode == 0
    again = run(log)
    assert again.returncode == 2 and "is there already: --force replaces it" in again.stderr
    assert run(log, "--force").returncode == 0
    assert len(list((tmp_path / "run_tensorboard").glob("*/*"))) == 1


def test_event_files_on_a_full_disk_leave_the_old_ones(tmp_path, capsys, full_disk):
    pytest.importorskip("tensorboardX")
    old = tmp_path / "train" / "events.out.tfevents.1.old"
    old.parent.mkdir()
    old.write_text("old")
    assert main([str(LOGS / "resumed.log"), "--out", str(tmp_path), "--force"]) == 2
    assert capsys.readouterr().err.endswith(": File too large\n")
    assert old.read_text() == "old" and len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize(("text", "message"), [("Hello.\n", "no iteration of a training"), (None, "No such file")])
def test_a_log_of_nothing_is_an_error_in_one_line(tmp_path, text, message):
    if text:
        (tmp_path / "run.log").write_text(text)
    result = run(tmp_path / "run.log")
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "run_tensorboard").exists()


def test_without_tensorboardX_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main([str(LOGS / "no_test.log"), "--out", str(tmp_path)]) == 2
