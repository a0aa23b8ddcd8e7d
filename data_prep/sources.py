"""One way to read original distributions: unpacked folders, and zip and (compressed) tar archives."""

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_prep.errors import DataError
from data_prep.progress import progress

DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile)


@contextmanager
def damage(where: str) -> Iterator[None]:
    """What reading a damaged file or archive raises becomes a DataError that names it; the system's errors stay."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if getattr(error, "errno", None):
            raise
        raise DataError(f"{where} is truncated or damaged ({error})") from None


class Source:
    """Files by their path relative to the distribution's root. A context manager."""

    def __init__(self, path: Path):
        self.path = path

    def files(self, folder: str) -> list[str]:
        """Sorted names of the files directly in `folder` ("" for the root); empty if there is no such folder."""
        raise NotImplementedError

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders directly in `folder`."""
        raise NotImplementedError

    def open(self, name: str) -> BinaryIO:
        """DataError if there is no such file."""
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        with damage(self.where(name)), self.open(name) as file:
            return file.read()

    def lines(self, name: str) -> list[str]:
        """Of a text file."""
        try:
            return self.read(name).decode().splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where(name)} is no text in UTF-8 ({error})") from None

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def locate(self, marker: str) -> str | None:
        """The root or the folder directly below it that holds the file `marker`, as a prefix ending in "/" or empty."""
        prefixes = [""] + [f"{folder}/" for folder in self.folders("")]
        return next((prefix for prefix in prefixes if marker in self.files(prefix.rstrip("/"))), None)

    def close(self) -> None:
        pass


class FolderSource(Source):
    def files(self, folder: str) -> list[str]:
        return self._entries(folder, os.DirEntry.is_file)

    def folders(self, folder: str) -> list[str]:
        return self._entries(folder, os.DirEntry.is_dir)

    def open(self, name: str) -> BinaryIO:
        try:
            return open(self.path / name, "rb")
        except FileNotFoundError:
            raise DataError(f"{self.where(name)} is missing") from None

    def _entries(self, folder: str, kind) -> list[str]:
        if not (self.path / folder).is_dir():
            return []
        with os.scandir(self.path / folder) as entries:
            return sorted(entry.name for entry in entries if kind(entry) and not entry.name.startswith("."))


class ArchiveSource(Source):
    """An index of the members over `_open_member`, which the two kinds of archive provide."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._members: dict[str, object] = {}
        self._files: dict[str, set[str]] = defaultdict(set)
        self._folders: dict[str, set[str]] = defaultdict(set)

    def files(self, folder: str) -> list[str]:
        return sorted(self._files[folder])

    def folders(self, folder: str) -> list[str]:
        return sorted(self._folders[folder])

    def open(self, name: str) -> BinaryIO:
        if name not in self._members:
            raise DataError(f"{self.where(name)} is missing")
        return self._open_member(self._members[name])

    def _add(self, name: str, member: object) -> None:
        name = name.removeprefix("./")
        folder, _, file = name.rpartition("/")
        if file.startswith("."):  # what macOS adds
            return
        self._members[name] = member
        if folder not in self._files:
            self._add_folder(folder)
        self._files[folder].add(file)

    def _add_folder(self, folder: str) -> None:
        parent, _, name = folder.rpartition("/")
        if name and name not in self._folders[parent]:
            self._folders[parent].add(name)
            self._add_folder(parent)


class ZipSource(ArchiveSource):
    def __init__(self, path: Path):
        super().__init__(path)
        self._zip = zipfile.ZipFile(path)
        for member in self._zip.infolist():
            if not member.is_dir():
                self._add(member.filename, member)

    def _open_member(self, member: zipfile.ZipInfo) -> BinaryIO:
        try:
            return self._zip.open(member)
        except RuntimeError as error:  # encrypted, or compressed in a way that Python does not know
            raise DataError(f"{self.where(member.filename)}: {error}; unpack the archive and give the folder") from None

    def close(self) -> None:
        self._zip.close()


class TarSource(ArchiveSource):
    """Compression forbids reading members in any order, so the archive is first decompressed into a nameless file."""

    def __init__(self, path: Path, scratch: Path):
        super().__init__(path)
        self._plain = tempfile.TemporaryFile(dir=scratch)
        try:
            with _decompressed(path) as compressed:
                shutil.copyfileobj(compressed, self._plain, 1 << 20)
            self._plain.seek(0)
            self._tar = tarfile.open(fileobj=self._plain, mode="r:")
            for member in self._tar.getmembers():
                if member.isfile() or member.islnk() or member.issym():
                    self._add(member.name, self._file(member))
        except BaseException:
            self._plain.close()
            raise

    def _file(self, member: tarfile.TarInfo) -> tarfile.TarInfo:
        """The member; DataError if it is a link to anything but a file in the archive."""
        try:
            if self._tar.extractfile(member):
                return member
        except (KeyError, RecursionError):  # no such member; a link to itself
            pass
        raise DataError(
            f"{self.where(member.name)} is a link to {member.linkname}, which is no file in the archive: unpack it and "
            "give the folder"
        )

    def _open_member(self, member: tarfile.TarInfo) -> BinaryIO:
        return self._tar.extractfile(member)

    def close(self) -> None:
        self._plain.close()


@contextmanager
def open_source(path: Path, scratch: Path) -> Iterator[Source]:
    """`path`: a folder, .zip, .tar or .tar.gz/.xz/.bz2, told apart by content. DataError if missing or damaged."""
    with damage(f"{path}: no archive, or one that"):
        if path.is_dir():
            source = FolderSource(path)
        elif not path.is_file():
            raise DataError(f"{path}: no such file or folder")
        elif zipfile.is_zipfile(path) or _starts_with(path, b"PK"):
            source = ZipSource(path)
        else:
            source = TarSource(path, scratch)
    try:
        yield source
    finally:
        source.close()


def checksums(path: Path) -> dict[str, str]:
    """{name: "algorithm:digest"} of an archive (MD5, as published) or of a folder (SHA-256 over sha256sum's lines).

    The latter is `find -L . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`.
    """
    if path.is_file():
        return {path.name: f"md5:{file_digest(path, 'md5')}"}
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    names = sorted((str(file.relative_to(path)) for file in _files_below(path)), key=os.fsencode)
    total = hashlib.sha256()
    for name in progress(names, desc=f"checksum of {path.name}", unit="file", leave=False):
        total.update(f"{file_digest(path / name, 'sha256')}  ".encode() + os.fsencode(name) + b"\n")
    return {path.resolve().name: f"sha256:{total.hexdigest()}"}


def _files_below(path: Path) -> Iterator[Path]:
    """Through links to folders too, as FolderSource reads them, but for those that lead back up."""
    for root, folders, files in os.walk(path, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [folder for folder in folders if not here.is_relative_to((here / folder).resolve())]
        yield from (Path(root, file) for file in files if Path(root, file).is_file())


def file_digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _starts_with(path: Path, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _decompressed(path: Path) -> BinaryIO:
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"\xfd7zXZ\0", lzma.open), (b"BZh", bz2.open)):
        if _starts_with(path, magic):
            return opener(path, "rb")
    return open(path, "rb")
