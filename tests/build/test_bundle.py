"""What cmake/bundle puts into a bundle, and how its `run` finds CUDA."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.build.conftest import ROOT

sys.path.insert(0, str(ROOT / "cmake/bundle"))
from bundle import describe_cuda, report  # noqa: E402
from libraries import locate, parse_ldd, select  # noqa: E402
from stubs import make_stub, replace_by_stubs, version_script  # noqa: E402


def test_ldd_is_read():
    text = (
        "\tlinux-vdso.so.1 (0x00007ffc)\n"
        "\tlibglog.so.1 => /lib/libglog.so.1 (0x00007f)\n"
        "\tlibcudnn.so.9 => not found\n"
        "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
    )
    assert parse_ldd(text) == {"libglog.so.1": Path("/lib/libglog.so.1"), "libcudnn.so.9": None}


NEEDED = {
    "caffe": ["libcaffe.so.1", "libstdc++.so.6", "libc.so.6"],
    "libcaffe.so.1": ["libglog.so.1", "libcublas.so.13", "libcudnn.so.9", "libz.so.1"],
    "libglog.so.1": ["libunwind.so.8", "ld-linux-x86-64.so.2"],
    "libcublas.so.13": ["libofcuda.so.1"],
}


def test_the_system_s_and_cuda_s_libraries_stay_out():
    names = ["libcaffe.so.1", "libglog.so.1", "libunwind.so.8", "libz.so.1"]
    located = {name: Path("/lib", name) for name in names}
    bundled, cuda = select([Path("caffe")], located, lambda path: NEEDED.get(path.name, []))
    assert sorted(bundled) == names
    assert cuda == {"libcublas.so.13", "libcudnn.so.9"}


def test_a_library_that_is_not_here_is_named():
    with pytest.raises(SystemExit, match="libglog.so.1 is needed, but not found"):
        select([Path("libcaffe.so.1")], {"libglog.so.1": None}, lambda path: NEEDED.get(path.name, []))


def test_wheels_are_those_of_the_cuda_version():
    assert describe_cuda({"libcudart.so.13", "libcudnn.so.9"}) == (
        "libcudart.so.13 nvidia-cuda-runtime\nlibcudnn.so.9 nvidia-cudnn-cu13\n"
    )
    assert describe_cuda({"libcudart.so.12", "libcudnn.so.9"}) == (
        "libcudart.so.12 nvidia-cuda-runtime-cu12\nlibcudnn.so.9 nvidia-cudnn-cu12\n"
    )


def test_too_large_a_bundle_fails_and_names_its_largest_file(tmp_path, capsys):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libbig.so").write_bytes(b"x" * 3_000_000)
    assert report(tmp_path, 3.1) == 0
    assert report(tmp_path, 2.9) == 1
    assert "3.0 MB  lib/libbig.so" in capsys.readouterr().err


def build_library(path: Path, source: str, *options: str | Path) -> Path:
    file = path.with_suffix(".c")
    file.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", file, f"-Wl,-soname,{path.name}", *options, "-o", path], check=True)
    return path


def test_a_stub_stops_whoever_calls_it(tmp_path):
    versions = tmp_path / "versions"
    versions.write_text(version_script({"far_away": "FAR_1.0", "other": ""}))
    library = build_library(
        tmp_path / "libfar.so", "int far_away(void) { return 1; }", f"-Wl,--version-script={versions}"
    )
    caller = build_library(
        tmp_path / "libnear.so",
        "int far_away(void); int near(void) { return 2; } int call(void) { return far_away(); }",
        library,
    )
    assert "far_away@FAR_1.0" in subprocess.run(["nm", "-D", caller], capture_output=True, text=True).stdout
    make_stub(caller, library, tmp_path / "libfar_stub.so")
    library.unlink()
    (tmp_path / "libfar_stub.so").rename(library)
    code = f"import ctypes; near = ctypes.CDLL('{caller}'); print(near.near(), flush=True); near.call()"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("2\n", "far_away: libfar.so is left out of this bundle\n")


def test_libraries_without_what_they_never_call_still_load(tmp_path):
    hdf5 = Path("/usr/lib/x86_64-linux-gnu/libhdf5_serial.so.103")
    if not hdf5.exists():
        pytest.skip(f"{hdf5} is not there: a system other than Debian 12")
    made = replace_by_stubs({hdf5.name: hdf5} | locate([hdf5]), tmp_path)
    assert sorted(made) == ["libcrypto_stub.so", "libcurl_stub.so", hdf5.name]
    code = f"import ctypes; print(ctypes.CDLL('{tmp_path / hdf5.name}').H5open())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout == "0\n"


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle with one program, which prints the libraries' path, for this Python."""
    folder = tmp_path / "bundle"
    (folder / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "cmake/bundle/run", folder)
    (folder / "bin/show").write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH|$1"\n')
    (folder / "bin/show").chmod(0o755)
    (folder / "python-version.txt").write_text(f"{sys.version_info.major}.{sys.version_info.minor}\n")
    (folder / "cuda-libraries.txt").write_text("libnone.so.13 nvidia-none\nlibnoble.so.9 nvidia-noble-cu13\n")
    return folder


def run(bundle: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
    environment = {**kept, "CAFFE_PYTHON": sys.executable, **environment}
    return subprocess.run([bundle / "run", *command], env=environment, capture_output=True, text=True, cwd="/")


def make_wheel(folder: Path, library: str) -> Path:
    (folder / "nvidia/cu13/lib").mkdir(parents=True)
    (folder / "nvidia/cu13/lib" / library).touch()
    return folder / "nvidia/cu13/lib"


def test_cuda_is_found_in_wheels_and_in_named_folders(bundle, tmp_path):
    wheel = make_wheel(tmp_path / "packages", "libnone.so.13")
    (tmp_path / "cudnn").mkdir()
    (tmp_path / "cudnn/libnoble.so.9").touch()
    result = run(bundle, "show", "a b", PYTHONPATH=str(tmp_path / "packages"), CAFFE_CUDA_LIBRARIES=f"{tmp_path}/cudnn")
    assert (result.stdout, result.stderr) == (f"{wheel}:{tmp_path}/cudnn|a b\n", "")


def test_a_packed_program_is_unpacked_once(bundle):
    (bundle / "cuda-libraries.txt").write_text("")
    subprocess.run(["gzip", bundle / "bin/show"], check=True)
    assert "Programs: python show" in run(bundle, "--help").stdout
    for _ in range(2):
        assert run(bundle, "show", "x").stdout.endswith("|x\n")
    assert [path.name for path in (bundle / "bin").iterdir()] == ["show"]


def test_missing_cuda_libraries_are_named_with_their_wheels(bundle, tmp_path):
    make_wheel(tmp_path / "packages", "libnone.so.13")
    result = run(bundle, "show", PYTHONPATH=str(tmp_path / "packages"))
    assert result.returncode == 1
    assert "run: not found on this machine: libnoble.so.9 (pip install nvidia-noble-cu13)" in result.stderr


def test_python_sees_the_bundle_and_another_python_only_its_messages(bundle):
    (bundle / "cuda-libraries.txt").write_text("")
    code = "import os; print(os.environ['PYTHONPATH'])"
    assert run(bundle, "python", "-c", code).stdout == f"{bundle}/python:{bundle}\n"
    (bundle / "python-version.txt").write_text("3.99\n")
    result = run(bundle, "python", "-c", code)
    assert result.stdout == f"{bundle}/messages:{bundle}\n"
    assert "and the pycaffe here needs 3.99: only caffe.proto can be imported" in result.stderr


def test_an_unknown_program_and_a_missing_python_are_named(bundle):
    (bundle / "cuda-libraries.txt").write_text("")
    assert "run: coffee is not here; there are: python show" in run(bundle, "coffee").stderr
    result = run(bundle, "python", CAFFE_PYTHON="/nowhere/python3")
    assert result.returncode == 1 and "run: no /nowhere/python3 on this machine" in result.stderr
