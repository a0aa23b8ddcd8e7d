"""Writing and reading the LMDB environments that Caffe's data layers read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from data_prep.errors import DataError

FIRST_MAP_SIZE = 1 << 24
MAX_KEY = 511  # LMDB's limit, in bytes


def record_key(position: int, name: str) -> bytes:
    """`position` in the stored order, then where the image came from, as convert_imageset writes its keys."""
    prefix = f"{position:08d}_".encode()
    return prefix + os.fsencode(name)[-(MAX_KEY - len(prefix)) :]


class LmdbWriter:
    """Appends records in ascending key order, a transaction for each batch. The map grows as it fills."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._env = lmdb.open(str(path), map_size=FIRST_MAP_SIZE, sync=False)
        except lmdb.Error as error:
            raise DataError(f"cannot write {path}: {error}") from None

    def put(self, records: list[tuple[bytes, bytes]]) -> None:
        """Raises OSError if the disk is full, DataError if LMDB fails otherwise, ValueError if keys do not ascend."""
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    added = transaction.cursor().putmulti(records, dupdata=False, append=True)[1]
                if added != len(records):
                    raise ValueError(f"{self._path}: {len(records) - added} of {len(records)} keys do not ascend")
                return
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
            except lmdb.Error as error:
                self._fail(error, sum(len(value) for _, value in records))

    def finish(self) -> None:
        """Returns when everything is on the disk."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            self._fail(error, 0)

    def _fail(self, error: lmdb.Error, size: int) -> None:
        """LMDB calls any write that was cut short an I/O error; a write of our own tells the system's reason."""
        with open(self._path / "data.mdb", "ab", buffering=0) as file:
            while size > 0:
                size -= file.write(bytes(size))
        raise DataError(f"cannot write {self._path}: {error}")

    def __enter__(self) -> "LmdbWriter":
        return self

    def __exit__(self, *_) -> None:
        self._env.close()


@contextmanager
def open_records(path: Path) -> Iterator[lmdb.Transaction]:
    """A read transaction on an existing, non-empty LMDB; DataError naming `path` where it is none or is damaged."""
    if not (path / "data.mdb").is_file():
        raise DataError(f"{path}: no LMDB here (a folder with data.mdb is needed)")
    try:
        with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
            needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
            if (found := (path / "data.mdb").stat().st_size) < needed:  # reading on would end in a bus error
                raise DataError(f"{path}: data.mdb is truncated, {found} bytes instead of {needed}")
            if not env.stat()["entries"]:
                raise DataError(f"{path}: the LMDB is empty")
            yield transaction
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be read as an LMDB ({error})") from None
