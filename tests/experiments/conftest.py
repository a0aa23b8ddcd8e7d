from pathlib import Path

import lmdb
import numpy as np
import pytest

from prototxt_gen.proto import pb


@pytest.fixture
def lmdb_of_noise():
    """Writes a data set's two LMDBs, of a few images of noise."""

    def write(folder: Path, size: int, records: int = 8, classes: int = 10) -> None:
        rng = np.random.default_rng(0)
        for part in ("train", "test"):
            (folder / f"{part}_lmdb").mkdir(parents=True)
            with (
                lmdb.open(str(folder / f"{part}_lmdb"), map_size=1 << 24) as environment,
                environment.begin(write=True) as transaction,
            ):
                for i in range(records):
                    pixels = rng.integers(0, 256, (3, size, size), np.uint8)
                    datum = pb.Datum(channels=3, height=size, width=size, data=pixels.tobytes(), label=i % classes)
                    transaction.put(f"{i:08d}".encode(), datum.SerializeToString())

    return write
