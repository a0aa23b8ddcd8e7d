"""Files are written whole or not at all, and errors name them."""

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prototxt_gen.command_line import Invalid


@contextmanager
def file_errors(verb: str, path: Path | str) -> Iterator[None]:
    """Turns what the system says of `path` into an Invalid: "cannot write net.prototxt: No space left on device"."""
    try:
        yield
    except OSError as error:
        raise Invalid(f"cannot {verb} {path}: {error.strerror}") from None


def exists(path: Path) -> bool:
    """Raises Invalid where that cannot be seen."""
    with file_errors("read", path):
        return path.exists()


_NUMBERS = itertools.count()  # of hidden names: threads may write into one folder


def _real(path: Path) -> Path:
    """Where links lead; of a circle of links, one of them."""
    return Path(os.path.realpath(path))


@contextmanager
def staged(contents: Mapping[Path, bytes]) -> Iterator[dict[Path, Path]]:
    """Writes the contents under hidden names beside their paths, {path: hidden name}; none of these is left behind.

    Folders are made. Raises Invalid, naming the path.
    """
    parts = {}
    try:
        for path, content in contents.items():
            with file_errors("write", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                parts[path] = _real(path).with_name(f".{os.getpid()}.{next(_NUMBERS)}.partial")
                parts[path].write_bytes(content)
        yield parts
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def write_files(contents: Mapping[Path, bytes]):
    """Writes all of the files or none: what is there stays until all of the new ones are whole. Raises Invalid."""
    for path in contents:
        if exists(path) and not path.is_file():  # a folder, or a device such as /dev/null
            raise Invalid(f"cannot write {path}: it is there, and is no file")
    with staged(contents) as parts:
        for path, part in parts.items():
            with file_errors("write", path):
                os.replace(part, _real(path))  # a link goes on to lead to its file
