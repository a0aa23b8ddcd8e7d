"""Where Caffe's source comes from, and what is said when it does not."""

import shutil
import subprocess

import pytest

from tests.build.conftest import ROOT

# Where the pinned source differs from BVLC/caffe: file, its text, BVLC's.
BVLC = [
    (
        "src/caffe/net.cpp",
        "CopyTrainedLayersFrom(const string& trained_filename) {\n"
        "  CopyTrainedLayersFromBinaryProto(trained_filename);",
        "CopyTrainedLayersFrom(const string& trained_filename) {\n"
        "#ifdef USE_HDF5\n  if (H5Fis_hdf5(trained_filename.c_str())) {\n"
        "    CopyTrainedLayersFromHDF5(trained_filename);\n    return;\n  }\n#endif\n"
        "  CopyTrainedLayersFromBinaryProto(trained_filename);",
    ),
    ("src/caffe/util/io.cpp", "SetTotalBytesLimit(536870912)", "SetTotalBytesLimit(kProtoReadBytesLimit, 536870912)"),
]


def test_a_bvlc_checkout_compiles_where_it_differs(configure, caffe_source, tmp_path):
    checkout = tmp_path / "caffe"
    shutil.copytree(caffe_source, checkout)
    for file, pinned, bvlc in BVLC:
        text = (checkout / file).read_text()
        assert pinned in text or bvlc in text
        (checkout / file).write_text(text.replace(pinned, bvlc))
    result = configure(f"-DCAFFE_SOURCE_DIR={checkout}", "-DBUILD_TESTING=OFF")
    assert result.returncode == 0, result.stderr
    objects = [f"CMakeFiles/caffe.dir/cmake/compat/{file}.o" for file, _, _ in BVLC]
    result = subprocess.run(["ninja", "-C", tmp_path / "build", *objects], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]


def test_a_folder_without_caffe_is_refused(configure, tmp_path):
    result = configure(f"-DCAFFE_SOURCE_DIR={tmp_path}")
    assert result.returncode != 0
    assert f"CAFFE_SOURCE_DIR={tmp_path} is no Caffe source" in " ".join(result.stderr.split())


def test_a_damaged_archive_is_removed(configure, tmp_path):
    archive = tmp_path / "build/download/brocolli-caffe-3.0.0.tar.gz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"cut short")
    result = configure()
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    assert "is expected: the download is damaged. It was removed; run again" in message
    assert not archive.exists()


def test_without_network_the_way_out_is_named(configure, tmp_path):
    nowhere = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    result = configure(**nowhere, PIP_NO_CACHE_DIR="1", PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="")
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    assert "Check the network" in message
    assert f"{tmp_path}/build/download/brocolli-caffe-3.0.0.tar.gz (sha256 ad7ba487" in message


@pytest.mark.parametrize(
    ("option", "name"),
    [("LMDB_LIBRARY", "LMDB"), ("OpenBLAS_INCLUDE_DIR", "OpenBLAS"), ("Protobuf_PROTOC_EXECUTABLE", "protoc")],
)
def test_a_missing_dependency_names_the_package_list(configure, caffe_source, option, name):
    result = configure(f"-DCAFFE_SOURCE_DIR={caffe_source}", f"-D{option}=")
    assert result.returncode != 0
    message = " ".join(result.stderr.split())
    assert name in message and "not found: install the packages that system-packages.txt lists" in message


def test_python_without_its_boost_is_told_which_to_use(configure, caffe_source):
    result = configure(
        f"-DCAFFE_SOURCE_DIR={caffe_source}", "-DBoost_NO_SYSTEM_PATHS=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Boost=ON"
    )
    assert result.returncode != 0 and "Boost 1.71 or newer (thread, filesystem) not found" in " ".join(
        result.stderr.split()
    )


@pytest.mark.parametrize("version", ["3.10.9"])
def test_an_old_python_is_refused(tmp_path, version):
    fake = tmp_path / "python3"
    fake.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo Python {version}\nexit 1\n")
    fake.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "system-packages.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "cmake", tmp_path / "cmake")
    command = ["make", "build/stamps/venv", f"PYTHON={fake}", "SYSTEM_PACKAGES=no"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert f"is Python {version}, but 3.11 or newer is needed: make PYTHON=" in result.stderr
