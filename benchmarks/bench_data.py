"""Random images in LMDBs where the generated nets look for them, so that a benchmark has a data layer to run."""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from data_prep.datum import Image, encode_datum
from data_prep.lmdb_io import LmdbWriter, record_key

RECORDS = 1280


def write_images(folder: Path, size: int = 32, classes: int = 10):
    """folder/train_lmdb and folder/test_lmdb: records of random pixels, 3 x size x size."""
    random = np.random.default_rng(1)
    for split in ("train", "test"):
        path = folder / f"{split}_lmdb"
        path.mkdir(parents=True)
        with LmdbWriter(path) as writer:
            images = random.integers(0, 256, (RECORDS, 3, size, size), dtype=np.uint8)
            writer.put(
                [
                    (record_key(i, "random"), encode_datum(Image(image), i % classes, "raw"))
                    for i, image in enumerate(images)
                ]
            )
            writer.finish()
