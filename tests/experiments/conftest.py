import contextlib
import json
import shutil
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

from experiments import report
from experiments.train import newest_snapshot
from prototxt_gen.proto import pb

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = (
    "name,arch,width,depth,downsampling,K,L,dataset,epochs,seeds,paper,deviation,nearest,same_as\n"
    "table4/a,xception,2,5,yes,,2,cifar10,40,2,,,,\n"
    "table4/b,xception,3,5,yes,,2,cifar10,40,2,,,,\n"
    "table6/a,xception,2,5,yes,,2,cifar10,40,2,,,,table4/a\n"
    "table4/bad,igcv2,7,5,yes,2,3,cifar10,40,2,,,,\n"
)
TRAIN, TEST = 640, 100  # images: 10 iterations of 64 in an epoch


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


@pytest.fixture
def project(tmp_path, lmdb_of_noise):
    """Without caffe_layers/ in it, the packages take the current folder for the project's root."""
    for package in ("experiments", "prototxt_gen"):
        ignore = shutil.ignore_patterns("__pycache__", "runs", "results", "table*", "figure*")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore if package == "experiments" else None)
    (tmp_path / "experiments/catalogue.csv").write_text(COLUMNS)
    datasets = tmp_path / "prototxt_gen/datasets.py"
    datasets.write_text(datasets.read_text().replace("10, 50_000, 10_000", f"10, {TRAIN}, {TEST}"))
    lmdb_of_noise(tmp_path / "data/cifar10", 32, TEST)
    facts = {"name": "cifar10", "num_classes": 10, "train": {"records": TRAIN}, "test": {"records": TEST},
             "image": {"channels": 3, "height": 32, "width": 32}, "mean": [127.5] * 3, "std": [73.9] * 3}  # fmt: skip
    (tmp_path / "data/cifar10/dataset.json").write_text(json.dumps(facts))
    return tmp_path


@pytest.fixture
def wait_for_snapshot(project):
    """Waits until a training of the project has one that is written to its end: from less it could not go on."""

    def wait(name: str) -> None:
        prefix = f"experiments/runs/{name}/{Path(name).parent.name}"
        with contextlib.chdir(project):  # snapshots name their model relative to the project's root
            wait_until(lambda: newest_snapshot(prefix))

    return wait


@pytest.fixture
def wait_for_iterations(project):
    """Waits until a training of the project iterates: from then on a signal to stop leaves a snapshot."""

    def wait(name: str) -> None:
        log = project / "experiments/runs" / name / "train.log"
        wait_until(lambda: log.exists() and "Iteration 0 " in log.read_text())

    return wait


def wait_until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def no_pictures(monkeypatch):
    """They take seconds."""
    for name in ("scatter", "learning_curves"):
        monkeypatch.setattr(report, name, lambda results: [])
    monkeypatch.setattr(report, "FIGURES", ())
