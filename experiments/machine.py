"""Where a result comes from: the commit, the machine and the libraries."""

import ctypes
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np

from prototxt_gen.command_line import project_root

# What a result depends on; documents and results themselves may differ.
CODE = (
    "caffe_layers",
    "cmake",
    "CMakeLists.txt",
    "data_prep",
    "experiments",
    "prototxt_gen",
    "pyproject.toml",
    ":!experiments/results",
)


def output(*command: str) -> str:
    """What a command prints, or '' if it fails or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=project_root()).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


DIRTY = "-dirty"


@functools.cache
def code() -> str:
    """The commit, with DIRTY if the code differs from it; of an installed package, its version."""
    head = output("git", "rev-parse", "HEAD")
    if not head:
        return f"caffe-igc-{_version()}"
    return head + (DIRTY if output("git", "status", "--porcelain", "--", *CODE) else "")


def hardware(threads: int, gpu: str | None) -> dict:
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") if gpu else None,
    }


def versions() -> dict:
    return {
        "caffe_igc": _version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _openblas(),
        "os": output("uname", "-sr"),
    }


def _version() -> str:
    try:
        return importlib.metadata.version("caffe-igc")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _field(path: str, name: str) -> str:
    match = re.search(rf"^{name}\s*: (.*)$", Path(path).read_text() if Path(path).exists() else "", re.MULTILINE)
    return match[1] if match else ""


def _openblas() -> str:
    """Its own description, with version and kernels in use."""
    try:
        config = ctypes.CDLL("libopenblas.so.0").openblas_get_config
    except (OSError, AttributeError):
        return "unknown"
    config.restype = ctypes.c_char_p
    return config().decode()
