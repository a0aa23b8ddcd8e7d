"""Where the build lies, and ways to configure another one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# build, or build/cuda13 in `make GPU=1 test`.
BUILD = ROOT / os.environ.get("CAFFE_BUILD", "build")


@pytest.fixture(scope="session")
def build() -> Path:
    """build/caffe, with programs in bin and pycaffe in python."""
    folder = BUILD / "caffe"
    if not (folder / "bin/caffe_test").exists():
        pytest.skip(f"no tests built in {folder}: run `make test`")
    return folder


@pytest.fixture(scope="session")
def caffe_source(build) -> Path:
    """The source that the build was made of."""
    cache = (BUILD / "CMakeCache.txt").read_text()
    for line in cache.splitlines():
        name, _, value = line.partition("=")
        if name == "CAFFE_SOURCE_DIR:PATH" and value:
            return Path(value)
    return next((BUILD / "source").glob("brocolli-caffe-*"))


@pytest.fixture
def configure(tmp_path) -> Callable:
    """configure(*options, source=ROOT, **environment): runs CMake into tmp_path/build."""

    def run(*options: str, source: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        command = [
            "cmake",
            "-S",
            source,
            "-B",
            tmp_path / "build",
            "-G",
            "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}",
        ]
        return subprocess.run(
            [*command, "-DCPU_ONLY=ON", *options], env={**os.environ, **environment}, capture_output=True, text=True
        )

    return run
