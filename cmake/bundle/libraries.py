"""Which shared libraries programs need, and which of them a bundle has to bring along."""

import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

# Every Linux distribution has these, and mixing two versions of them in a process ends badly.
_SYSTEM = re.compile(
    r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libutil|libresolv|libnsl|libgcc_s|libstdc\+\+)\.so\.\d+$"
)
# NVIDIA's are the machine's own: they go with its driver, and are 20 times the size of the rest.
_CUDA = re.compile(r"lib(cuda|cudart|cublas|cublasLt|curand|cudnn\w*|nccl|nvrtc|nvJitLink)\.so\.\d+$")


def is_system(name: str) -> bool:
    return bool(_SYSTEM.match(name))


def is_cuda(name: str) -> bool:
    return bool(_CUDA.match(name))


def stem(name: str) -> str:
    """libopencv_core for libopencv_core.so.406."""
    return name.split(".so")[0]


def output(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"error: {' '.join(map(str, command))}:\n{result.stdout}{result.stderr}")
    return result.stdout


def needed(file: Path) -> list[str]:
    """The names of the libraries that `file` itself asks for."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "--dynamic", "--wide", file))


def parse_ldd(text: str) -> dict[str, Path | None]:
    """Name and path of each library in ldd's output; None for one that is not found."""
    found = re.findall(r"^\s*(\S+) => (not found|\S+)", text, re.MULTILINE)
    return {name: None if path == "not found" else Path(path) for name, path in found}


def locate(programs: Iterable[Path]) -> dict[str, Path | None]:
    """Where this machine has each library that the programs need, by whatever detours."""
    return {name: path for program in programs for name, path in parse_ldd(output("ldd", program)).items()}


def select(
    programs: Iterable[Path], located: dict[str, Path | None], needed: Callable[[Path], list[str]] = needed
) -> tuple[dict[str, Path], set[str]]:
    """(libraries to bring along, names of CUDA's libraries) that the programs need.

    What only a system or CUDA library asks for is not looked at.
    """
    bundled: dict[str, Path] = {}
    cuda: set[str] = set()
    files = list(programs)
    while files:
        for name in needed(files.pop()):
            if is_cuda(name):
                cuda.add(name)
            elif not is_system(name) and name not in bundled:
                path = located.get(name)
                if path is None:
                    raise SystemExit(f"error: {name} is needed, but not found on this machine")
                bundled[name] = path
                files.append(path)
    return bundled, cuda
