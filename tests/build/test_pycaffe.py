"""pycaffe with today's numpy and protobuf, and what our build changed about Caffe."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

caffe = pytest.importorskip("caffe")

NET = """
layer {{ name: 'data' type: 'DummyData' top: 'data' dummy_data_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc'
        inner_product_param {{ num_output: 4 weight_filler {{ type: 'gaussian' std: {std} }} }} }}
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True)


def make_net(folder: Path, std: float):
    path = folder / f"net_{std}.prototxt"
    path.write_text(NET.format(std=std))
    return caffe.Net(str(path), caffe.TEST)


def test_import_is_silent():
    result = python("import caffe; print(caffe.__version__)")
    assert (result.stdout, result.stderr) == ("1.0.0\n", "")


def test_caffes_own_python_tests(caffe_source, tmp_path):
    """52 tests. One draws a net, which needs Graphviz; two need NCCL and skip themselves in a build without."""
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    without = [] if shutil.which("dot") else ["-k", "not test_draw_net"]
    # Beside the source's own package `caffe`, the tests would take that for the one to test.
    shutil.copytree(caffe_source / "python/caffe/test", tmp_path / "pycaffe")
    command = [sys.executable, "-m", "pytest", *options, *without, tmp_path / "pycaffe"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) >= 49


def test_datum_keeps_its_bytes():
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    back = caffe.io.datum_to_array(caffe.io.array_to_datum(image, 7))
    np.testing.assert_array_equal(back, image)
    back[0, 0, 0] = 9  # as before, the array is the caller's own


@pytest.mark.parametrize("suffix", ["caffemodel", "caffemodel.h5"])
def test_weights_load_from_both_formats(tmp_path, suffix):
    saved, loaded = make_net(tmp_path, 1), make_net(tmp_path, 2)
    path = str(tmp_path / f"weights.{suffix}")
    saved.save_hdf5(path) if suffix.endswith("h5") else saved.save(path)
    assert not np.array_equal(loaded.params["fc"][0].data, saved.params["fc"][0].data)
    loaded.copy_from(path)
    np.testing.assert_array_equal(loaded.params["fc"][0].data, saved.params["fc"][0].data)


CORE = """
import caffe, ctypes
core = ctypes.CDLL(None).openblas_get_corename if hasattr(ctypes.CDLL(None), 'openblas_get_corename') else None
core = core or ctypes.CDLL('libopenblas.so.0').openblas_get_corename
core.restype = ctypes.c_char_p
print(core().decode())
"""


def has_avx2() -> bool:
    return " avx2 " in Path("/proc/cpuinfo").read_text()


@pytest.mark.skipif(not has_avx2(), reason="this CPU has no AVX2: an old kernel is the right one")
def test_openblas_uses_kernels_of_this_cpu(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert python(CORE).stdout.strip() in {"Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids"}


def test_openblas_choice_of_the_user_is_kept():
    assert python(CORE, OPENBLAS_CORETYPE="Nehalem").stdout.strip() == "Nehalem"


@pytest.mark.parametrize(("make", "message"), [(False, "There is no LMDB at"), (True, "is empty")])
def test_missing_and_empty_lmdb_name_path_and_command(tmp_path, make, message):
    path = tmp_path / "train_lmdb"
    if make:
        lmdb.open(str(path)).close()
    net = tmp_path / "net.prototxt"
    net.write_text(
        f"layer {{ type: 'Data' top: 'x' top: 'y' data_param {{ source: '{path}' backend: LMDB batch_size: 1 }} }}"
    )
    result = python(f"import caffe; caffe.Net('{net}', caffe.TRAIN)")
    assert result.returncode != 0
    line = next(line for line in result.stderr.splitlines() if message in line)
    assert str(path) in line and "python data_prep/fashion_mnist.py" in line and "convert_imageset" in line
