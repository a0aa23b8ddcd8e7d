"""Running the commands, and reading what they made with plain lmdb and protobuf."""

from pathlib import Path

import lmdb
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def read_lmdb(path: Path) -> dict[str, tuple[np.ndarray, int]]:
    """{key: (pixels (3, H, W), label)} of an LMDB of raw records, in the order of its keys."""
    from caffe.proto.caffe_pb2 import Datum

    records = {}
    with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin() as transaction:
        for key, value in transaction.cursor():
            datum = Datum.FromString(value)
            pixels = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
            records[key.decode()] = (pixels, datum.label)
    return records


def read_split(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names, pixels, labels) of an LMDB, after checking that its keys count up from 0."""
    records = read_lmdb(path)
    assert [key[:9] for key in records] == [f"{position:08d}_" for position in range(len(records))]
    pixels, labels = zip(*records.values(), strict=True)
    return [key[9:] for key in records], np.stack(pixels), np.array(labels)


def fails(capfd: pytest.CaptureFixture, main, *arguments) -> str:
    """The one line on stderr with which a command refuses, as a user sees it."""
    from data_prep.errors import run_command

    with pytest.raises(SystemExit) as exit_info:
        run_command(lambda: main([str(argument) for argument in arguments]))
    assert exit_info.value.code == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")
