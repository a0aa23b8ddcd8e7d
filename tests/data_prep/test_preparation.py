"""What all commands share: whole output or none, whatever happens; second runs; memory; the disk's limits."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, fails, read_split

from data_prep import image_folder, show_lmdb
from data_prep.channel_statistics import ChannelStatistics
from data_prep.datum import Image
from data_prep.errors import DataError, run_command
from data_prep.lmdb_io import LmdbWriter, open_records, record_key
from data_prep.prepare import Dataset, Recipe, Split, prepare

# A data set of random images that runs `event` before image 3,000 of 6,000 is read; argv: out folder, event
SCRIPT = """
import os, signal, sys, time
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from data_prep.datum import Image
from data_prep.errors import run_command
from data_prep.prepare import Dataset, Recipe, Split, prepare

images = int(os.environ.get("IMAGES", 6000))
reads = 0

def read(index):
    global reads
    reads += 1
    if reads == images // 2:
        exec(sys.argv[2])
    return Image(np.full((3, 32, 32), index % 251, np.uint8))

def main():
    split = Split(np.arange(images) % 10, [f"i/{i}" for i in range(images)], read)
    dataset = Dataset([str(i) for i in range(10)], split, split)
    prepare(Path(sys.argv[1]), Recipe("set", "here", {}, 1, "raw"), lambda _: nullcontext(dataset))
    return 0

run_command(main)
"""


def start(out, event="pass", **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"} | options.pop("env", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), event], env=environment, **pipes, **options)


def error_of(process: subprocess.Popen) -> str:
    lines = process.communicate(timeout=60)[1].splitlines()
    (line,) = (line for line in lines if line.startswith("error: "))
    return line


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_work_leaves_nothing(tmp_path, name):
    process = start(tmp_path / "data/out", f"os.kill(os.getpid(), signal.{name})")
    assert "interrupted" in error_of(process) and process.returncode == 130
    assert list((tmp_path / "data").iterdir()) == []


def test_killed_work_is_cleaned_up_by_the_next_run(tmp_path):
    process = start(tmp_path / "out", "os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.partial").exists()
    (tmp_path / ".out.partial/left_over").write_text("")
    assert start(tmp_path / "out").wait(timeout=60) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "test_lmdb", "train_lmdb"]
    assert len(read_split(tmp_path / "out/train_lmdb")[0]) == 6000


def test_two_runs_at_a_time_are_refused(tmp_path):
    first = start(tmp_path / "out", "time.sleep(60)")
    deadline = time.monotonic() + 60
    while not (tmp_path / ".out.partial/train_lmdb").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert f"{tmp_path}/out is being prepared by another process" in error_of(start(tmp_path / "out"))
    first.send_signal(signal.SIGINT)
    assert "interrupted" in error_of(first)


def test_file_size_limit(tmp_path):
    """Stands for a full disk on every machine: the first write beyond 4 MB fails."""
    limit = 4 << 20
    process = start(tmp_path / "d/out", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    error = error_of(process)
    assert "cannot write" in error and "out" in error and "File too large" in error
    assert list((tmp_path / "d").iterdir()) == []


def test_full_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        error = error_of(start(tmp_path / "out"))
        assert "cannot write" in error and "out" in error and "No space left on device" in error
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_memory_does_not_grow_with_the_data(tmp_path):
    peaks = []
    for images in (10_000, 60_000):
        report = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        script = SCRIPT.replace("    return 0", f"    {report}\n    return 0")
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "IMAGES": str(images)}
        command = [sys.executable, "-c", script, str(tmp_path / str(images)), "pass"]
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        peaks.append(int(output.split()[-1]))
    assert peaks[1] - peaks[0] < 50_000 * 3072 / 1024 / 5  # KB: a fifth of what 50,000 more images take


def small(tmp_path, seed=1, out="out", labels=None, classes=3):
    """Prepares 30 random images under tmp_path."""
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(30) % 3 if labels is None else labels
    split = Split(labels, [f"i/{i}" for i in range(30)], lambda index: Image(images[index]))
    dataset = Dataset([f"c{i}" for i in range(classes)], split, split)
    recipe = Recipe("set", "here", {"set.tar": "md5:1"}, seed, "raw", {"size": 8})
    prepare(tmp_path / out, recipe, lambda _: nullcontext(dataset))


def test_second_run_says_so_and_touches_nothing(tmp_path, capsys):
    small(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    small(tmp_path)
    assert "already prepared from the same input" in capsys.readouterr().out
    with pytest.raises(DataError, match="prepared with seed 1, not 2: choose another --out"):
        small(tmp_path, seed=2)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_foreign_folder_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="out exists and is no prepared data set"):
        small(tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_description_of_another_kind_is_no_data_set(tmp_path):
    small(tmp_path)
    (tmp_path / "out/dataset.json").write_text("[]")
    with pytest.raises(DataError, match="out exists and is no prepared data set"):
        small(tmp_path)


@pytest.mark.parametrize(("command", "arguments"), [(image_folder, ["--source", "."]), (show_lmdb, ["."])])
def test_a_seed_is_not_negative(capsys, command, arguments):
    with pytest.raises(SystemExit):
        command.main([*arguments, "--seed", "-1"])
    assert "argument --seed: -1 is negative" in capsys.readouterr().err


def test_lost_records_are_noticed(tmp_path):
    small(tmp_path)
    (tmp_path / "out/test_lmdb/data.mdb").unlink()
    with pytest.raises(DataError, match="out exists and is no prepared data set"):
        small(tmp_path)


def test_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    small(tmp_path)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["train"]["records"] == 30


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(30) % 2, "train images lack 1 of 3 classes, first 'c2'"),
        (np.arange(30) % 4, "i/3: label 3, but labels are 0 to 2"),
        (np.arange(30) % 3 - 1, "i/0: label -1, but labels are 0 to 2"),
    ],
)
def test_bad_labels(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        small(tmp_path, labels=labels)
    assert list(tmp_path.iterdir()) == []


def test_statistics_are_exact():
    """Where single precision, or a sum of squares in 32 bits, would be off."""
    images = np.random.default_rng(1).integers(200, 256, (3000, 3, 32, 32), dtype=np.uint8)
    statistics = ChannelStatistics()
    for batch in np.split(images, 6):
        statistics.add(batch)
    np.testing.assert_allclose(statistics.mean, images.mean((0, 2, 3), dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(statistics.std, images.std((0, 2, 3), dtype=np.float64), rtol=1e-11)


def test_map_grows_and_long_names_fit(tmp_path):
    """40 MB into a map that starts at 16 MB; names longer than a key may be keep their end."""
    value = bytes(1 << 20)
    names = [f"{'very/' * 200}long_{number}.png" for number in range(40)]
    with LmdbWriter(tmp_path / "l") as writer:
        for start_ in range(0, 40, 10):
            writer.put([(record_key(n, names[n]), value) for n in range(start_, start_ + 10)])
        writer.finish()
    with open_records(tmp_path / "l") as transaction:
        keys = [key.decode() for key, _ in transaction.cursor()]
    assert [key[:9] for key in keys] == [f"{n:08d}_" for n in range(40)]
    assert all(key.endswith(f"long_{n}.png") for n, key in enumerate(keys))


def test_reading_what_is_no_lmdb(tmp_path, capfd):
    def read_main(arguments):
        with open_records(Path(arguments[0])):
            return 0

    assert "no LMDB here" in fails(capfd, read_main, tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"not an LMDB" * 1000)
    assert f"{tmp_path}: cannot be read as an LMDB" in fails(capfd, read_main, tmp_path)
    with LmdbWriter(tmp_path / "empty"):
        pass
    with LmdbWriter(tmp_path / "cut") as writer:
        writer.put([(record_key(position, "x"), bytes(3000)) for position in range(1000)])
    os.truncate(tmp_path / "cut/data.mdb", 2_000_000)
    assert "cut: data.mdb is truncated, 2000000 bytes instead of 4" in fails(capfd, read_main, tmp_path / "cut")
    assert "the LMDB is empty" in fails(capfd, read_main, tmp_path / "empty")


def test_missing_pycaffe_is_one_clear_line():
    command = [sys.executable, str(ROOT / "data_prep/cifar.py"), "--help"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode == 0:
        pytest.skip("pycaffe is installed, not only on PYTHONPATH")
    assert result.stderr.count("\n") == 1 and "run `make` or `pip install .` in the project's root" in result.stderr


def test_errors_of_the_system_name_the_file(tmp_path, capfd):
    with pytest.raises(SystemExit):
        run_command(lambda: (tmp_path / "gone").read_text())
    assert capfd.readouterr().err == f"error: {tmp_path}/gone: No such file or directory\n"
