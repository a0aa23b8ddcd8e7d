"""Stands in for large libraries that a bundle does without: each of their functions ends the program with a message.

They are called for kinds of data that Caffe never has to do with.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from libraries import needed, output, stem

# Which libraries do without which others. OpenCV loses OpenGL and the image formats other than BMP, JPEG, PNG and PPM,
# HDF5 its files in S3.
WITHOUT = {
    "libopencv_imgcodecs": tuple("libgdal libgdcmMSFF libgdcmDSED libOpenEXR-3_1 libtiff libwebp libopenjp2".split()),
    "libopencv_core": ("libGLX", "liblapack", "libblas"),
    "libhdf5_serial": ("libcurl", "libcrypto"),
}
# OpenCV calls these before it knows an image's format. They return 1, an error where that matters.
HARMLESS = {
    "GDALAllRegister",
    "TIFFSetErrorHandler",
    "TIFFSetWarningHandler",
    "WebPGetFeaturesInternal",
    "_ZN7Imf_3_114ChromaticitiesC1ERKN9Imath_3_14Vec2IfEES5_S5_S5_",  # of OpenEXR
}


def symbols(file: Path, kind: str) -> dict[str, str]:
    """Names that `file` exports (kind "defined") or looks up elsewhere ("undefined"), with their versions or ""."""
    lines = output("nm", "--dynamic", "--format=posix", f"--{kind}-only", file).splitlines()
    names = (line.split()[0].partition("@") for line in lines)
    return {name: version.lstrip("@") for name, _, version in names}


def stub_source(library: str, functions: Iterable[str]) -> str:
    """C that defines `functions`, whose names may be mangled ones of C++."""
    text = "#include <stdio.h>\n#include <stdlib.h>\nstatic void stop(const char* function) {\n"
    text += f'  fprintf(stderr, "%s: {library} is left out of this bundle\\n", function);\n  abort();\n}}\n'
    for number, function in enumerate(sorted(functions)):
        body = "" if function in HARMLESS else f'stop("{function}"); '
        text += f'int f{number}(void) __asm__("{function}");\nint f{number}(void) {{ {body}return 1; }}\n'
    return text


def version_script(versions: dict[str, str]) -> str:
    """The linker's script that gives each symbol its version."""
    nodes = defaultdict(list)
    for name, version in versions.items():
        if version:
            nodes[version].append(name)
    return "".join(f"{version} {{ global: {'; '.join(sorted(names))}; }};\n" for version, names in nodes.items())


def make_stub(caller: Path, library: Path, stub: Path) -> None:
    """Writes `stub` with the functions of `library` that `caller` calls."""
    exported = symbols(library, "defined")
    calls = {name: version for name, version in symbols(caller, "undefined").items() if name in exported}
    with tempfile.TemporaryDirectory() as temporary:
        source, script = Path(temporary, "stub.c"), Path(temporary, "versions")
        source.write_text(stub_source(library.name, calls))
        script.write_text(version_script(calls))
        versions = [f"-Wl,--version-script={script}"] if script.stat().st_size else []
        output("cc", "-shared", "-fPIC", f"-Wl,-soname,{stub.name}", *versions, source, "-o", stub)


def replace_by_stubs(located: dict[str, Path | None], folder: Path) -> dict[str, Path]:
    """Copies the libraries of WITHOUT into `folder`, with stubs; returns the names and paths of all these."""
    made: dict[str, Path] = {}
    for name, path in located.items():
        if path is None or stem(name) not in WITHOUT:
            continue
        made[name] = Path(shutil.copy(path, folder / name))
        for other in needed(path):
            if stem(other) in WITHOUT[stem(name)]:
                stub = folder / f"{stem(other)}_stub.so"
                make_stub(path, located[other], stub)
                output("patchelf", "--page-size", "4096", "--replace-needed", other, stub.name, made[name])
                made[stub.name] = stub
    return made
