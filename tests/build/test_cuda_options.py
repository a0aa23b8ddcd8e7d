"""What is said about CUDA where it is asked for wrongly, and which compiler is taken."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.build.conftest import ROOT


@pytest.mark.parametrize(
    ("option", "message"),
    [("GPU=yes", "GPU=yes is not known: GPU=1 builds with CUDA"), ("CUDA=11", "CUDA=11 is not known: it is 12 or 13")],
)
def test_make_refuses_what_it_does_not_know(option, message):
    result = subprocess.run(["make", "help", option], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0 and message in result.stderr


def test_cuda_without_nvcc_is_refused(configure, caffe_source, tmp_path):
    (tmp_path / "bin").mkdir()
    for program in ("cmake", "ninja", "c++", "cc", "ld", "as", "ar", "ranlib", "nm", "sh", "uname"):
        for folder in ("/usr/bin", "/bin"):
            if (Path(folder) / program).exists() and not (tmp_path / "bin" / program).exists():
                (tmp_path / "bin" / program).symlink_to(Path(folder) / program)
    options = [f"-DCAFFE_SOURCE_DIR={caffe_source}", "-DCPU_ONLY=OFF", "-DCMAKE_CUDA_COMPILER=NOTFOUND"]
    result = configure(*options, PATH=str(tmp_path / "bin"), CUDACXX="")
    assert result.returncode != 0
    assert "CPU_ONLY=OFF needs the CUDA toolkit, but nvcc was not found" in " ".join(result.stderr.split())


def fake_nvcc(folder: Path, release: str) -> Path:
    folder.mkdir()
    nvcc = folder / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.99'\n")
    nvcc.chmod(0o755)
    return nvcc


def test_the_compiler_of_the_wanted_version_is_taken(tmp_path):
    old, new = fake_nvcc(tmp_path / "old", "12.4"), fake_nvcc(tmp_path / "new", "13.0")
    environment = {**os.environ, "CUDACXX": str(old), "PATH": f"{new.parent}:{os.environ['PATH']}"}
    for version, nvcc in (("12", old), ("13", new)):
        command = [ROOT / "cmake/cuda/get_compiler.sh", version, tmp_path / "made", "python3"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (result.stdout, result.stderr) == (f"{nvcc}\n", "")
    assert not (tmp_path / "made").exists()
