"""Where a result comes from: the commit, the machine and the libraries."""

import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path

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
def code(*more: str) -> str:
    """The commit, with DIRTY if the code or the Caffe in use differs from it; of an installed package, its version.

    more: what else, as git's pathspecs, the result depends on.
    """
    head = output("git", "rev-parse", "HEAD")
    if not head:
        return f"caffe-igc-{_version('caffe-igc')}"
    changed = output("git", "status", "--porcelain", "--", *CODE, *more) or caffe_of_other_code()
    return head + (DIRTY if changed else "")


LAYERS = {".cpp", ".hpp", ".cu", ".cuh", ".proto"}  # as in cmake/Install.cmake


def caffe_of_other_code() -> str:
    """The first file of the layers in which the checkout and the installed Caffe differ; '' for none."""
    root = project_root()
    caffe = importlib.util.find_spec("caffe")
    if not caffe or not (root / "caffe_layers").is_dir():
        return ""
    sums = Path(caffe.origin).with_name("layers.sha256")
    built = dict(reversed(line.split("  ")) for line in sums.read_text().splitlines()) if sums.exists() else {}
    files = {str(file.relative_to(root)): file for file in root.glob("caffe_layers/**/*") if file.suffix in LAYERS}
    here = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    return next((name for name in sorted(built | here) if built.get(name) != here.get(name)), "")


def short(code: str) -> str:
    """For tables, what code() gives."""
    commit = code.removesuffix(DIRTY)
    commit = commit[:10] if re.fullmatch("[0-9a-f]{40}", commit) else commit
    return commit + " with uncommitted changes" * code.endswith(DIRTY)


# Those that our kernels are compiled for, widest first: what a CPU needs for them, as in caffe_layers/kernels/cpu.cpp.
INSTRUCTIONS = {"AVX-512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "AVX2": {"avx2", "fma"}}


def instructions(flags: str) -> str:
    """The kernels in use on a CPU of these flags."""
    return next((name for name, needed in INSTRUCTIONS.items() if needed <= set(flags.split())), "baseline")


def hardware(threads: int, gpu: str | None) -> dict:
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "instructions": instructions(_field("/proc/cpuinfo", "flags")),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") if gpu else None,
    }


def versions() -> dict:
    return {
        "caffe_igc": _version("caffe-igc"),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "blas": _openblas(),
        "os": output("uname", "-sr"),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
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
