"""The C++ suites: Caffe's own and ours."""

import re
import subprocess
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.build.conftest import BUILD, ROOT

# So many of Caffe's tests a CPU build can run. Left out of it are those that touch a GPU: NOT_ON_CPU by name, and all
# that are compiled with CUDA only.
CAFFE_TESTS = 1138
OUR_TESTS = 180  # at least: some of ours depend on the CPU
NOT_ON_CPU = "--gtest_filter=-*GPU*"

# Pictures that some tests read: the pinned source comes without its examples/. Of theirs only the sizes matter (rows,
# columns), that one is gray, and how many bytes cat.jpg has.
PICTURES = {"cat.jpg": (360, 480), "cat gray.jpg": (360, 480), "cat_gray.jpg": (360, 480), "fish-bike.jpg": (323, 481)}
CAT_BYTES = 140391


def run_suite(binary: Path, folder: Path, *options: str) -> int:
    """The number of tests passed; fails with the output of those that failed, and warns of what was skipped and why."""
    result = subprocess.run([binary, *options], cwd=folder, capture_output=True, text=True, errors="replace")
    passed = re.search(r"^\[  PASSED  \] (\d+) tests?", result.stdout, re.MULTILINE)
    if result.returncode != 0 or not passed:
        failed = [
            part for part in result.stdout.split("[ RUN      ] ")[1:] if "[  FAILED  ]" in part.split("[-----")[0]
        ]
        pytest.fail("\n".join(failed) or result.stdout[-3000:] + result.stderr[-3000:], pytrace=False)
    for reason in dict.fromkeys(re.findall(r"^\[  SKIPPED \] (.*)", result.stdout, re.MULTILINE)):
        warnings.warn(f"{binary.name}: skipped: {reason}", stacklevel=2)
    return int(passed[1])


@pytest.fixture
def caffe_root(caffe_source, tmp_path) -> Path:
    """A folder like Caffe's root: its test data, and examples/images if the source lacks them."""
    (tmp_path / "src").symlink_to(caffe_source / "src")
    if (caffe_source / "examples/images/cat.jpg").exists():
        (tmp_path / "examples").symlink_to(caffe_source / "examples")
        return tmp_path
    images = tmp_path / "examples/images"
    images.mkdir(parents=True)
    for name, (rows, columns) in PICTURES.items():
        noise = np.random.default_rng(1).integers(0, 256, (rows // 8 + 1, columns // 8 + 1, 3), np.uint8)
        picture = cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(images / name), picture[:, :, 0] if name == "cat_gray.jpg" else picture)
    with open(images / "cat.jpg", "ab") as cat:
        cat.truncate(CAT_BYTES)  # a decoder stops at the end marker before
    return tmp_path


def test_caffe_itself(build, caffe_root):
    cpu_only = "CPU_ONLY:BOOL=ON" in (BUILD / "CMakeCache.txt").read_text()
    options = [NOT_ON_CPU] if cpu_only else []
    assert run_suite(build / "bin/caffe_test", caffe_root, *options) >= CAFFE_TESTS


def test_our_layers(build):
    assert run_suite(build / "bin/caffe_layers_test", ROOT) >= OUR_TESTS


def test_what_a_suite_skips_is_seen(tmp_path, recwarn):
    lines = ["[ RUN      ] A/0.B", *["[  SKIPPED ] no GPU on this machine"] * 2, "[  SKIPPED ] this CPU cannot run x"]
    suite = tmp_path / "suite"
    suite.write_text("#!/bin/sh\ncat <<END\n" + "\n".join([*lines, "[  PASSED  ] 3 tests."]) + "\nEND\n")
    suite.chmod(0o755)
    assert run_suite(suite, tmp_path) == 3
    reasons = ["no GPU on this machine", "this CPU cannot run x"]
    assert [str(warning.message) for warning in recwarn] == [f"suite: skipped: {reason}" for reason in reasons]
