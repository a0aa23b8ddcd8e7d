"""The log parser on lines as Caffe writes them, and the learning curve drawn from it."""

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import cv2
import pytest

from experiments import caffe_log, learning_curve
from experiments.caffe_log import duration, parse_log
from experiments.jobs import attempts

ROOT = Path(__file__).resolve().parents[2]

# From `caffe train` of this build, shortened.
LOG = """\
I20261123 12:00:00.000001   123 solver.cpp:347] Iteration 0, Testing net (#0)
I20261123 12:00:01.000001   123 solver.cpp:414]     Test net output #0: accuracy = 0.1
I20261123 12:00:01.000002   123 solver.cpp:414]     Test net output #1: loss = 2.4 (* 1 = 2.4 loss)
I20261123 12:00:02.000001   123 solver.cpp:239] Iteration 0 (0 iter/s, 1.5s/10 iters), loss = 2.3125
I20261123 12:00:02.000002   123 solver.cpp:258]     Train net output #0: accuracy = 0.125
I20261123 12:00:02.000003   123 solver.cpp:258]     Train net output #1: loss = 2.3125 (* 1 = 2.3125 loss)
I20261123 12:00:02.000004   123 sgd_solver.cpp:112] Iteration 0, lr = 0.1
I20261123 12:00:03.000001   123 solver.cpp:239] Iteration 10 (10.5 iter/s, 0.9s/10 iters), loss = 1.5e-05
I20261123 12:00:03.000002   123 solver.cpp:258]     Train net output #0: accuracy = 0.5
I20261123 12:00:03.000004   123 sgd_solver.cpp:112] Iteration 10, lr = 0.01
I20261123 12:00:04.000001   123 solver.cpp:347] Iteration 20, Testing net (#0)
I20261123 12:00:05.000001   123 solver.cpp:414]     Test net output #0: accuracy = 0.875
I20261123 12:00:05.000002   123 solver.cpp:332] Optimization Done.
"""

RESUMED = """\
I20261123 13:00:00.000001   124 caffe.cpp:241] Resuming from net_iter_10.solverstate
I20261123 13:00:03.000001   124 solver.cpp:239] Iteration 10 (0 iter/s, 0.9s/10 iters), loss = 0.75
I20261123 13:00:04.000001   124 solver.cpp:347] Iteration 20, Testing net (#0)
I20261123 13:00:05.000001   124 solver.cpp:414]     Test net output #0: accuracy = 0.75
"""


@pytest.mark.parametrize("text", [LOG, LOG.replace("I2026", "I")], ids=["year", "no year"])
def test_values_by_iteration(text):
    log = parse_log(text)
    assert log.smoothed_loss == [(0, 2.3125), (10, 1.5e-05)]
    assert log.train == {"accuracy": [(0, 0.125), (10, 0.5)], "loss": [(0, 2.3125)]}
    assert log.test == {"accuracy": [(0, 0.1), (20, 0.875)], "loss": [(0, 2.4)]}
    assert log.rate == [(0, 0.1), (10, 0.01)]
    assert log.final_test_accuracy == 0.875 and log.done


def test_a_line_cut_short_is_left_out():
    cut = LOG[: LOG.index("0.875") + 3]  # "accuracy = 0.8"
    log = parse_log(cut)
    assert log.final_test_accuracy == 0.1 and not log.done


def test_every_truncation_gives_a_part_of_the_whole():
    whole = parse_log(LOG)
    for end in range(len(LOG)):
        part = parse_log(LOG[:end])
        assert part.smoothed_loss == whole.smoothed_loss[: len(part.smoothed_loss)]
        for name, values in part.test.items():
            assert values == whole.test[name][: len(values)]


def test_a_resumed_run_takes_the_place_of_what_it_repeats():
    log = parse_log(LOG + RESUMED)
    assert log.smoothed_loss == [(0, 2.3125), (10, 0.75)]
    assert log.test["accuracy"] == [(0, 0.1), (20, 0.75)]
    assert not log.done


NEW_YEAR = """\
I20261231 23:59:30.000000   123 caffe.cpp:200] Use CPU.
I20270101 00:01:00.500000   123 solver.cpp:332] Optimization Done.
"""


@pytest.mark.parametrize("text", [NEW_YEAR, NEW_YEAR.replace("I2026", "I").replace("I2027", "I")])
def test_a_run_over_new_year_lasts_as_long_as_any(text):
    assert duration(text, written=datetime(2027, 1, 1, 0, 1, 1)) == 90.5


def test_no_lines_and_a_clock_that_was_set_back_are_no_time():
    assert duration("Hello.\n") == 0
    assert duration("".join(reversed(NEW_YEAR.splitlines(keepends=True)))) == 0


def test_each_start_of_caffe_in_a_log_has_its_time():
    later = "== 2027-01-02T00:00:00Z abd-dirty caffe train --snapshot=s\n"
    first, second = attempts(f"== 2026-12-31T22:00:00Z abc caffe train\n{NEW_YEAR}{later}")
    assert (first.code, first.command, first.seconds) == ("abc", "caffe train", 90.5)
    assert (second.time, second.code, second.seconds) == ("2027-01-02T00:00:00Z", "abd-dirty", 0)


def test_no_test_phase():
    log = parse_log("\n".join(line for line in LOG.splitlines() if "est net" not in line) + "\n")
    assert log.test == {} and log.final_test_accuracy is None and len(log.smoothed_loss) == 2


def test_the_curve_is_a_picture(tmp_path):
    (tmp_path / "run.log").write_text(LOG)
    subprocess.run([sys.executable, ROOT / "experiments/learning_curve.py", tmp_path / "run.log"], check=True)
    picture = cv2.imread(str(tmp_path / "run.png"))
    assert picture.shape == (675, 1200, 3) and picture.std() > 1


def test_the_curve_does_not_take_the_place_of_the_log(tmp_path, capsys):
    (tmp_path / "run.png").write_text(LOG)
    assert learning_curve.main([str(tmp_path / "run.png")]) == 2
    assert "the picture would take the place of the log" in capsys.readouterr().err
    assert (tmp_path / "run.png").read_text() == LOG


@pytest.mark.parametrize("module", [caffe_log, learning_curve])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.log", "nothing.log: no "),
        ("none.log", "cannot read none.log: No such file or directory"),
        (".", "cannot read .: Is a directory"),
    ],
)
def test_a_log_of_nothing_is_an_error_in_one_line(tmp_path, monkeypatch, capsys, module, name, message):
    monkeypatch.chdir(tmp_path)
    Path("nothing.log").write_text("Hello.\n")
    assert module.main([name]) == 2
    assert capsys.readouterr().err.startswith(f"{module.__name__.rpartition('.')[2]}: error: {message}")
    assert list(tmp_path.iterdir()) == [tmp_path / "nothing.log"]


def test_tests_without_an_accuracy_are_told_from_none(capsys):
    assert caffe_log.main([str(Path(__file__).parent / "logs/nan.log")]) == 2
    assert "nan.log: no accuracy among what its tests put out (loss)" in capsys.readouterr().err


def test_a_picture_of_no_known_kind_is_refused(tmp_path, capsys):
    (tmp_path / "run.log").write_text(LOG)
    assert learning_curve.main([str(tmp_path / "run.log"), "-o", str(tmp_path / "x.foo")]) == 2
    assert "x.foo: the suffix of a picture is one of" in capsys.readouterr().err
