"""Files are written whole or not at all, on a disk that is full too."""

import os
from pathlib import Path

import pytest

from prototxt_gen.command_line import Invalid
from prototxt_gen.files import write_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_files_are_written_in_the_place_of_old_ones(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_files({tmp_path / "link": b"1", tmp_path / "new folder/b": b"2"})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "1"
    assert (tmp_path / "new folder/b").read_text() == "2" and names(tmp_path) == ["link", "new folder", "real"]


def test_long_names_and_circles_of_links(tmp_path):
    for path in (tmp_path / ("n" * 255), tmp_path / "one"):
        if path.name == "one":
            path.symlink_to("other")
            (tmp_path / "other").symlink_to("one")
        write_files({path: b"1"})
        assert path.read_text() == "1"


def test_on_a_full_disk_all_old_files_stay(tmp_path, full_disk):
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"old {name}")
    with pytest.raises(Invalid, match=f"^cannot write {tmp_path}/b: File too large$"):
        write_files({tmp_path / "a": b"new", tmp_path / "b": bytes(5000)})
    assert (tmp_path / "a").read_text() == "old a" and (tmp_path / "b").read_text() == "old b"
    assert names(tmp_path) == ["a", "b"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(Invalid, match=f"cannot write {path}: it is there, and is no file"):
            write_files({tmp_path / "a": b"", path: b""})
    assert not names(tmp_path) and not Path(os.devnull).is_file()


def test_commands_name_the_file_that_does_not_fit(run_tool, tmp_path, full_disk):
    net = "\n".join(f'layer{{name:"{i}" type:"ReLU" bottom:"x" top:"x"}}' for i in range(40))
    (tmp_path / "net.prototxt").write_text(net)
    (tmp_path / "out.prototxt").write_text("old")
    done = run_tool("convert_engine", "net.prototxt", "--to", "stock", "--out", "out.prototxt", "--force")
    assert done.returncode == 2 and done.stderr.endswith("cannot write out.prototxt: File too large\n"), done.stderr
    assert (tmp_path / "out.prototxt").read_text() == "old" and names(tmp_path) == ["net.prototxt", "out.prototxt"]
    done = run_tool("make_net", "--arch", "igcv1", "--width", 48, "--out", "run")
    assert done.returncode == 2 and done.stderr.endswith("run/train_val.prototxt: File too large\n"), done.stderr
    assert not names(tmp_path / "run")


def test_a_file_is_not_written_twice(run_tool, tmp_path):
    for name in ("net.prototxt", "net.caffemodel"):
        (tmp_path / name).touch()
    out = ["--out", "same", "--weights-out", "./same"]
    for tool, arguments in (
        ("convert_engine", ["net.prototxt", "--to", "stock", "--weights", "net.caffemodel"]),
        ("fold_batch_norm", ["net.prototxt", "net.caffemodel"]),
    ):
        done = run_tool(tool, *arguments, *out)
        assert done.returncode == 2 and "--out and --weights-out are both same" in done.stderr, done.stderr
    assert names(tmp_path) == ["net.caffemodel", "net.prototxt"]
