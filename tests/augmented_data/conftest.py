"""What the tests of the AugmentedData layer share: small LMDBs, nets of one layer, and the `caffe` command."""

import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import lmdb
import numpy as np
import pytest

CAFFE = importlib.util.find_spec("caffe")
collect_ignore_glob = [] if CAFFE else ["test_*.py"]


def pytest_report_header() -> str | None:
    return None if CAFFE else "augmented_data: left out, no pycaffe (build/caffe/python) on PYTHONPATH"


@pytest.fixture(scope="session")
def caffe_command() -> Path:
    """The `caffe` of the pycaffe in use: beside this Python, or in build/caffe/bin."""
    for folder in (Path(sys.executable).parent, Path(CAFFE.origin).parents[2] / "bin"):
        if (folder / "caffe").exists():
            return folder / "caffe"
    pytest.skip("no `caffe` executable")


@pytest.fixture(scope="session")
def write_lmdb() -> Callable:
    def write(path: Path, images: Iterable[np.ndarray | bytes], labels: Iterable[int]) -> Path:
        """Images are C x H x W bytes, stored raw, or the bytes of an image file. Returns `path`."""
        from caffe.proto.caffe_pb2 import Datum

        with lmdb.open(str(path), map_size=1 << 30) as env, env.begin(write=True) as transaction:
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                if isinstance(image, bytes):
                    datum = Datum(encoded=True, data=image, label=int(label))
                else:
                    channels, height, width = image.shape
                    data = image.astype(np.uint8).tobytes()
                    datum = Datum(channels=channels, height=height, width=width, data=data, label=int(label))
                transaction.put(f"{number:08d}".encode(), datum.SerializeToString())
        return path

    return write


@pytest.fixture
def data_net(tmp_path) -> Callable:
    def make(source: Path, fields: str, phase: str = "TRAIN"):
        """A net of one AugmentedData layer with the tops `data` and `label`."""
        import caffe

        text = (
            "layer { name: 'data' type: 'AugmentedData' top: 'data' top: 'label' "
            f"augmented_data_param {{ source: '{source}' {fields} }} }}"
        )
        prototxt = tmp_path / "data.prototxt"
        prototxt.write_text(text)
        return caffe.Net(str(prototxt), getattr(caffe, phase))

    return make
