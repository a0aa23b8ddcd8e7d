"""Results of training runs: one JSON file for each run, seed and number of epochs, under experiments/results/.

results/<run>/seed<S>_e<E>.json, where <run> is the catalogue's name, such as table4/igcv2_c64_d8_cifar100.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from experiments import machine
from prototxt_gen.command_line import Invalid, project_root
from prototxt_gen.files import file_errors, staged

CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
MOST_POINTS = 200


@dataclass(frozen=True)
class Record:
    """What one finished training was and gave. Accuracies in percent, times in UTC, counts as the paper counts."""

    name: str
    seed: int
    epochs: float
    paper_epochs: float
    iterations: int
    batch_size: int
    arch: str
    dataset: str
    params: int
    flops: int
    test_accuracy: float  # of the last test, on the whole test set
    test_loss: float
    curve: dict  # CURVES: [[iteration, value], ...], at most about MOST_POINTS each
    train_seconds: float  # wall time of `caffe train`, summed over resumes
    resumed: int  # how often it went on from a snapshot
    started: str
    finished: str
    commit: str
    dirty: bool  # code that differs from the commit's
    command: list
    prototxt: dict  # train_val_sha256, solver_sha256
    hardware: dict  # machine.hardware
    versions: dict  # machine.versions

    @property
    def path(self) -> Path:
        """Relative to the results folder."""
        return Path(self.name) / f"{seed_and_epochs(self.seed, self.epochs)}.json"

    @property
    def code(self) -> str:
        """Its commits, short, and whether files differed from them."""
        return "+".join(map(machine.short, self.commit.split("+"))) + " with uncommitted changes" * self.dirty


def seed_and_epochs(seed: int, epochs: float) -> str:
    """seed1_e10, seed2_e0.15; a name of its own for each number of epochs."""
    return f"seed{seed}_e{str(epochs).removesuffix('.0')}"


def results_folder() -> Path:
    return project_root() / "experiments" / "results"


def write_record(record: Record, folder: Path | None = None) -> Path:
    """Writes it whole or not at all. Raises Invalid if there is one already: results are never overwritten."""
    path = (folder or results_folder()) / record.path
    with staged({path: _to_json(record).encode()}) as parts, file_errors("write", path):
        try:
            os.link(parts[path], path)  # unlike a rename, fails where the file exists
        except FileExistsError:
            raise Invalid(f"{path} is there already: remove it first if the new result is to take its place") from None
    return path


def _to_json(record: Record) -> str:
    """One line for each key and each curve, so that a change shows as such in git."""
    values = asdict(record)
    curves = ",\n".join(f"    {json.dumps(key)}: {json.dumps(points)}" for key, points in values["curve"].items())
    lines = [
        f"  {json.dumps(key)}: " + (f"{{\n{curves}\n  }}" if key == "curve" else json.dumps(value))
        for key, value in values.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_record(path: Path) -> Record:
    """The record at `path`. Raises Invalid, naming what is wrong with it."""
    with file_errors("read", path):
        content = path.read_bytes()
    try:
        values = json.loads(content)
    except ValueError as error:
        raise Invalid(f"{path} is no JSON: {error}") from None
    wrong = _wrong(values)
    if wrong:
        raise Invalid(f"{path}: {wrong}")
    return Record(**values)


def _wrong(values) -> str:
    """'' for a complete record."""
    if not isinstance(values, dict):
        return "a record is a JSON object"
    expected = {field.name: field.type for field in fields(Record)}
    missing, strange = expected.keys() - values.keys(), values.keys() - expected.keys()
    if missing or strange:
        return "; ".join(
            f"{what} {', '.join(sorted(keys))}" for what, keys in (("lacks", missing), ("unknown:", strange)) if keys
        )
    for key, kind in expected.items():
        number = kind in (int, float) and isinstance(values[key], (int, kind)) and not isinstance(values[key], bool)
        if not number and type(values[key]) is not kind:
            return f"{key} is {values[key]!r} instead of a {kind.__name__}"
    if not 0 <= values["test_accuracy"] <= 100:
        return f"test_accuracy is {values['test_accuracy']}, not a percentage"
    if values["train_seconds"] < 0:
        return f"train_seconds is {values['train_seconds']}, a negative time"
    for key in CURVES:
        points = values["curve"].get(key)
        if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
            return f"curve {key} is no list of [iteration, value]"
    return ""


def read_records(folder: Path | None = None) -> list[Record]:
    """All records under a results folder, by name, epochs and seed. Raises Invalid at the first that is wrong."""
    folder = folder or results_folder()
    found = []
    for path in folder.glob("**/[!.]*.json"):
        record = read_record(path)
        if path != folder / record.path:
            raise Invalid(f"{path} holds the record of {record.path}")
        found.append(record)
    return sorted(found, key=lambda record: (record.name, record.epochs, record.seed))


def check_commits(table: str, records: Iterable[Record]) -> None:
    """Raises Invalid where the records of a table or figure come from different commits, or from uncommitted code."""
    sources, commits = defaultdict(list), set()
    for record in records:
        sources[record.code].append(str(record.path))
        commits |= set(record.commit.split("+"))
    found = ", ".join(f"{source} ({len(paths)}, such as {paths[0]})" for source, paths in sorted(sources.items()))
    if len(commits) > 1:
        raise Invalid(f"{table}: results of {len(commits)} commits mixed: {found}")
    if any("uncommitted" in source for source in sources):
        raise Invalid(f"{table}: results of uncommitted code: {found}")


def thin_out(points: Iterable[tuple[int, float]], scale: float = 1) -> list[list[float]]:
    """At most MOST_POINTS + 1 of the points, evenly, the last one always; values times `scale`, six digits."""
    points = list(points)
    step = math.ceil(len(points) / MOST_POINTS)
    kept = points[::-1][:: step or 1][::-1]
    return [[iteration, float(f"{value * scale:.6g}")] for iteration, value in kept]
