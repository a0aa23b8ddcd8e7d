"""OpenBLAS with what Caffe calls of it: without LAPACK, and without the kernels for CPUs older than Haswell (2013).

It is linked anew from the distribution's own static archive. Older CPUs use the kernels for SSE3.
"""

from collections.abc import Iterable
from pathlib import Path

from libraries import needed, output, stem
from stubs import symbols

_OLD_CPUS = (
    "ATOM BARCELONA BOBCAT BULLDOZER CORE2 DUNNINGTON EXCAVATOR NANO NEHALEM OPTERON OPTERON_SSE3 PENRYN PILEDRIVER "
    "SANDYBRIDGE STEAMROLLER"
).split()


def relink_openblas(located: dict[str, Path | None], programs: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Writes the smaller library into `folder`; returns its name and path, or nothing without a static archive."""
    name = next(name for name in located if stem(name) == "libopenblas")
    library = located[name].resolve()
    archive = library.parent / "libopenblas.a"
    if not archive.exists():
        return {}
    called = set().union(*(symbols(program, "undefined") for program in programs))
    keep = [f"-Wl,--undefined={symbol}" for symbol in sorted(called & set(symbols(library, "defined")))]
    old = [f"-Wl,--defsym=gotoblas_{cpu}=gotoblas_PRESCOTT" for cpu in _OLD_CPUS]
    flags = ["-shared", f"-Wl,-soname,{name}", "-Wl,--gc-sections", "-Wl,--as-needed"]
    others = [f"-l:{other}" for other in needed(library)]
    output("cc", *flags, *old, *keep, archive, *others, "-o", folder / name)
    return {name: folder / name}
