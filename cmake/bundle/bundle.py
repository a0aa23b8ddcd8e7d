"""Writes a folder with Caffe, pycaffe, tests, benchmarks and the libraries that they need, for another machine.

What that machine needs: Linux on x86-64 with this machine's C library or a newer one, NVIDIA's driver, and CUDA's
libraries, which the bundle's `run` finds.
"""

import argparse
import shutil
import sys
from pathlib import Path

from libraries import locate, output, select, stem
from openblas import relink_openblas
from stubs import replace_by_stubs

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("benchmarks", "prototxt_gen", "experiments", "data_prep")
# The wheels that hold the libraries of CUDA 12 and 13.
WHEELS = {
    "libcudart": ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"),
    "libcublas": ("nvidia-cublas-cu12", "nvidia-cublas"),
    "libcurand": ("nvidia-curand-cu12", "nvidia-curand"),
    "libcudnn": ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
    "libnccl": ("nvidia-nccl-cu12", "nvidia-nccl-cu13"),
}


def copy_programs(build: Path, bundle: Path) -> list[Path]:
    """Copies what was built; returns the copies that have libraries to find."""
    (bundle / "bin").mkdir()
    programs = [shutil.copy(file, bundle / "bin") for file in sorted((build / "bin").iterdir())]
    programs.append(shutil.copy(build / "lib/libcaffe.so.1", bundle / "lib"))
    shutil.copytree(build / "python", bundle / "python", ignore=shutil.ignore_patterns("__pycache__"))
    programs += (bundle / "python/caffe").glob("_caffe*.so")
    return [Path(program) for program in programs]


def copy_scripts(build: Path, bundle: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__", "runs", "results", "table?", "figure?")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, bundle / folder, ignore=skip)
    # The messages alone, for a Python that the bundle's pycaffe was not built for.
    (bundle / "messages/caffe/proto").mkdir(parents=True)
    (bundle / "messages/caffe/__init__.py").write_text(
        '"""Only caffe.proto: the pycaffe of this bundle was built for another Python."""\n'
    )
    shutil.copy(build / "python/caffe/proto/caffe_pb2.py", bundle / "messages/caffe/proto")
    # Caffe's own tests read these from the folder that they run in.
    for data in build.parent.glob("source/*/src/caffe/test/test_data"):
        shutil.copytree(data, bundle / "src/caffe/test/test_data")


def set_search_paths(bundle: Path, programs: list[Path], libraries: list[Path]) -> None:
    for file in [*programs, *libraries]:
        depth = len(file.relative_to(bundle).parts) - 1
        path = "$ORIGIN" if file.parent == bundle / "lib" else f"$ORIGIN/{'../' * depth}lib"
        file.chmod(0o755)
        output("strip", "--strip-unneeded", file)
        output("patchelf", "--page-size", "4096", "--set-rpath", path, file)


def compress_tests(bundle: Path) -> None:
    """The test programs as bin/NAME.gz, which `run` unpacks when they are asked for."""
    for program in sorted((bundle / "bin").glob("*_test")):
        output("gzip", "-9", program)


def describe_cuda(names: set[str]) -> str:
    """A line for each of CUDA's libraries: its name, and the wheel that has it."""
    major = next((int(name.rsplit(".", 1)[1]) for name in names if stem(name) == "libcudart"), 13)
    return "".join(f"{name} {WHEELS[stem(name)][major >= 13]}\n" for name in sorted(names))


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())


def report(bundle: Path, limit: float) -> int:
    """Prints what takes how much space; returns the exit status."""
    mb = 1_000_000
    for path in sorted(bundle.iterdir(), key=size, reverse=True):
        print(f"{size(path) / mb:8.1f} MB  {path.name}")
    total = size(bundle) / mb
    print(f"{total:8.1f} MB  in all, {limit:g} MB at most")
    if total <= limit:
        return 0
    largest = sorted((file for file in bundle.rglob("*") if file.is_file()), key=size, reverse=True)[:10]
    print(f"error: {bundle} is larger than {limit:g} MB; its largest files:", file=sys.stderr)
    for file in largest:
        print(f"{size(file) / mb:8.1f} MB  {file.relative_to(bundle)}", file=sys.stderr)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="CMake's build folder, such as build/cuda13")
    parser.add_argument("bundle", type=Path, help="the folder to write; replaced if it is a bundle")
    parser.add_argument("--limit", type=float, default=50, help="MB that it may take (%(default)s)")
    args = parser.parse_args()

    build = args.build / "caffe"
    if not (build / "bin/caffe_layers_test").exists():
        parser.error(f"{build} has no caffe_layers_test: build with tests first (`make GPU=1 gpu-bundle` does)")
    if args.bundle.exists() and not (args.bundle / "run").exists():
        parser.error(f"{args.bundle} exists and is no bundle: remove it, or name another folder")
    shutil.rmtree(args.bundle, ignore_errors=True)
    bundle = args.bundle.resolve()
    (bundle / "lib").mkdir(parents=True)

    located = locate([*(build / "bin").iterdir(), *(build / "python/caffe").glob("_caffe*.so")])
    programs = copy_programs(build, bundle)
    located |= relink_openblas(located, programs, bundle / "lib")
    located |= replace_by_stubs(located, bundle / "lib")
    chosen, cuda = select(programs, located)
    libraries = [bundle / "lib" / name for name in chosen if stem(name) != "libcaffe"]
    for library in libraries:
        if not library.exists():
            shutil.copy(chosen[library.name], library)
    set_search_paths(bundle, programs, libraries)
    compress_tests(bundle)
    copy_scripts(build, bundle)
    shutil.copy(Path(__file__).with_name("run"), bundle / "run")
    (bundle / "cuda-libraries.txt").write_text(describe_cuda(cuda))
    (bundle / "python-version.txt").write_text(f"{sys.version_info.major}.{sys.version_info.minor}\n")
    return report(bundle, args.limit)


if __name__ == "__main__":
    sys.exit(main())
