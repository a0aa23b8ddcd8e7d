"""Synthetic records of runs of the catalogue, and the report that the command makes of some."""

import dataclasses
from pathlib import Path

import numpy as np

from experiments import report
from experiments.catalogue import catalogue
from experiments.records import Record, write_record
from experiments.report_results import size

OURS, OTHER = "table4/igcv2_c64_d8_cifar100", "table4/xception_c35_d8_cifar100"


def record(name: str, seed: int = 1, epochs: float = 10.0, accuracy: float = 50.0, **changes) -> Record:
    run = catalogue()[name]
    iterations = round(epochs * 781.25)
    steps = np.linspace(0, iterations, 5).astype(int).tolist()
    values = Record(
        name=name, seed=seed, epochs=epochs, paper_epochs=float(run.epochs), iterations=iterations, batch_size=64,
        arch=run.arch, dataset=run.dataset, params=size(run).params, flops=size(run).flops,
        test_accuracy=accuracy, test_loss=1.5,
        curve={key: [[step, 40.0 if "acc" in key else 2.0] for step in steps]
               for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")},
        train_seconds=1800.0, resumed=0, started="2026-11-25T02:40:00Z", finished="2026-11-25T03:10:00Z",
        commit="a" * 40, dirty=False, command=["caffe", "train", f"--solver=experiments/runs/{name}/solver.prototxt"],
        prototxt={"train_val_sha256": "0" * 64, "solver_sha256": "0" * 64},
        hardware={"cpu": "A CPU", "cores": 4, "threads": 2, "memory_gb": 8.0, "gpu": None},
        versions={"caffe_igc": "1.0.0"},
    )  # fmt: skip
    return dataclasses.replace(values, **changes)


def make(folder: Path, records: list[Record], *options: str) -> str:
    """The page that the command makes of these records."""
    for one in records:
        write_record(one, folder)
    folder.mkdir(exist_ok=True)
    assert report.main(["--results", str(folder), *options]) is None
    return (folder / "report.html").read_text()


SWEEP = [name for name in catalogue() if name.startswith("figure2/") and "_l4_" in name]
# Of several tables, seeds and schedules; one has a longer training, of another commit.
SOME = [
    *(record(OURS, seed, accuracy=a) for seed, a in ((1, 51.25), (2, 52.5), (3, 50.125))),
    record(OURS, 1, epochs=2.0, accuracy=11.11, commit="b" * 40),
    *(record(OTHER, seed, accuracy=a) for seed, a in ((1, 49.5), (2, 48.25))),
    *(record(name, accuracy=30 + i) for i, name in enumerate(SWEEP[:4])),
    record("table3/igcv2star_c416_d20_cifar100", epochs=400.0, accuracy=77.5),
]
