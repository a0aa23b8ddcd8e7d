"""Finds data_prep, pycaffe and the given data sets."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("IGC_SHARED", ROOT.parent / "shared"))
sys.path.insert(0, str(ROOT))

HAVE_CAFFE = importlib.util.find_spec("caffe") is not None
collect_ignore_glob = [] if HAVE_CAFFE else ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if HAVE_CAFFE else "data_prep: left out, no pycaffe (caffe.proto.caffe_pb2) on PYTHONPATH"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no shared data under {SHARED} (set IGC_SHARED)")
    return SHARED / "data"
