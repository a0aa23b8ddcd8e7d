"""One training of a run of the catalogue, with its seed and number of epochs: its folder, its state, its record."""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from experiments import machine
from experiments.caffe_log import CaffeLog, duration
from experiments.catalogue import Run, catalogue
from experiments.records import CURVES, Record, results_folder, seed_and_epochs, thin_out, write_record
from experiments.train import ATTEMPT, Training, TrainingError
from prototxt_gen.command_line import Invalid, project_root
from prototxt_gen.experiment import Files, build

LOG = "train.log"
PREPARE = {  # as modules: outside a clone there are no files to run
    "cifar10": "python -m data_prep.cifar --dataset cifar10",
    "cifar100": "python -m data_prep.cifar --dataset cifar100",
    "tiny-imagenet": "python -m data_prep.tiny_imagenet",
}


def runs_folder() -> Path:
    return project_root() / "experiments" / "runs"


@dataclass(frozen=True)
class Job:
    """gpu, threads: as for Training."""

    run: Run
    seed: int
    epochs: float
    gpu: str | None = None
    threads: int = 1

    @property
    def name(self) -> str:
        return f"{self.run.name}/{seed_and_epochs(self.seed, self.epochs)}"

    @property
    def folder(self) -> Path:
        return runs_folder() / self.name

    @property
    def record_path(self) -> Path:
        return results_folder() / f"{self.name}.json"

    @property
    def begun(self) -> bool:
        """Caffe was started."""
        return (self.folder / LOG).exists()

    @property
    def half_done(self) -> bool:
        """A snapshot is there to go on from."""
        return any(self.folder.glob("*.solverstate"))

    def files(self) -> Files:
        return build(self.run.experiment(self.folder, self.epochs, seed=self.seed, gpu=self.gpu is not None))

    def prepare(self) -> Files:
        """Writes the prototxt. Raises Invalid where a training with other settings is half done."""
        files = self.files()
        try:
            files.write(force=not self.half_done)
        except Invalid:
            raise Invalid(
                f"{self.folder} has snapshots of a training with other settings: remove the folder to train anew"
            ) from None
        return files

    def train(self, started: Callable[[Training], None]) -> Record:
        """Trains to the end and writes the record. `started` is given the training before it starts.

        Raises Invalid, TrainingError.
        """
        files = self.prepare()
        solver = self.folder.relative_to(project_root()) / "solver.prototxt"
        training = Training(solver, solver.with_name(LOG), self.gpu, self.threads, f"{self.name}: ")
        started(training)
        record = self._record(files, training.run(), training.log.read_text(errors="replace"))
        write_record(record)
        return record

    def _record(self, files: Files, log: CaffeLog, log_text: str) -> Record:
        schedule = files.summary["schedule"]
        tests = {name: log.test.get(name, []) for name in ("accuracy", "loss")}
        if not tests["accuracy"] or tests["accuracy"][-1][0] != schedule["max_iter"]:
            raise TrainingError(f"{self.folder}/{LOG}: no test at the last iteration, {schedule['max_iter']}")
        starts = attempts(log_text)
        codes = list(dict.fromkeys(start.code for start in starts))
        curves = (log.smoothed_loss, log.train.get("accuracy", []), tests["loss"], tests["accuracy"])
        return Record(
            name=self.run.name,
            seed=self.seed,
            epochs=self.epochs,
            paper_epochs=self.run.epochs,
            iterations=schedule["max_iter"],
            batch_size=schedule["batch_size"],
            arch=self.run.arch,
            dataset=self.run.dataset,
            params=files.summary["params"],
            flops=files.summary["flops"],
            test_accuracy=round(100 * tests["accuracy"][-1][1], 4),
            test_loss=tests["loss"][-1][1],
            curve={
                key: thin_out(points, 100 if key.endswith("accuracy") else 1)
                for key, points in zip(CURVES, curves, strict=True)
            },
            train_seconds=round(sum(start.seconds for start in starts), 1),
            resumed=len(starts) - 1,
            started=starts[0].time,
            finished=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            commit="+".join(code.removesuffix(machine.DIRTY) for code in codes),
            dirty=any(code.endswith(machine.DIRTY) for code in codes),
            command=["caffe", *shlex.split(starts[-1].command)[1:]],
            prototxt={f"{name}_sha256": _sha256(files.texts[f"{name}.prototxt"]) for name in ("train_val", "solver")},
            hardware=machine.hardware(self.threads, self.gpu),
            versions=machine.versions(),
        )


def list_jobs(
    runs: list[Run], seeds: Iterable[int] | None, epochs: float | None, gpu: str | None = None, threads: int = 1
) -> list[Job]:
    """For each seed all runs, each network once; seeds and epochs as the catalogue says where they are None.

    Raises Invalid for no seeds or no epochs.
    """
    seeds = None if seeds is None else list(seeds)
    if seeds == []:
        raise Invalid("seeds 0: at least 1 is needed")
    if epochs is not None and not epochs > 0:
        raise Invalid(f"epochs {epochs:g}: more than 0 are needed")
    jobs = [
        Job(run, seed, epochs or run.epochs, gpu, threads)
        for run in dict.fromkeys(catalogue()[run.trained] for run in runs)
        for seed in (range(1, run.seeds + 1) if seeds is None else seeds)
    ]
    return sorted(jobs, key=lambda job: job.seed)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Attempt:
    """A start of caffe: when, by which code (machine.code), how, and seconds from Caffe's first line to its last."""

    time: str
    code: str
    command: str
    seconds: float


def attempts(log_text: str) -> list[Attempt]:
    """All starts of caffe in a log, resumed ones too."""
    found = []
    for part in re.split(rf"^{ATTEMPT}", log_text, flags=re.MULTILINE)[1:]:
        found.append(Attempt(*part.partition("\n")[0].split(" ", 2), duration(part)))
    return found
