"""`cmake --install` gives a tree that another C++ project can use."""

import subprocess

from tests.build.conftest import BUILD, ROOT

CMAKE = """cmake_minimum_required(VERSION 3.25)
project(Consumer LANGUAGES C CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(CaffeIGC REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE CaffeIGC::caffe)
"""

MAIN = """#include <caffe/caffe.hpp>
#include <iostream>

int main() {
  caffe::LayerParameter param;
  param.set_type("ChannelPermutation");
  param.mutable_channel_permutation_param()->add_index(0);
  std::cout << caffe::LayerRegistry<float>::CreateLayer(param)->type() << std::endl;
}
"""


def run(*command, cwd=ROOT) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def test_another_project_finds_and_links_it(build, tmp_path):
    prefix = tmp_path / "prefix"
    run("cmake", "--install", BUILD, "--prefix", prefix)
    assert run(prefix / "bin/caffe", "--version", cwd="/").startswith("caffe version")
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    (tmp_path / "main.cpp").write_text(MAIN)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build/consumer") == "ChannelPermutation\n"
