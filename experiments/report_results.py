"""What the report knows of each run: its size by the generators, the paper's numbers, and the records of trainings."""

import functools
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from experiments.catalogue import Run, catalogue, select
from experiments.records import Record
from prototxt_gen.architecture import Options, Plan, make_plan
from prototxt_gen.command_line import Invalid
from prototxt_gen.complexity import count_net
from prototxt_gen.conditions import BlockReport, parameters, report
from prototxt_gen.datasets import find_dataset
from prototxt_gen.network import deploy_net


@dataclass(frozen=True)
class Size:
    """#Params and FLOPs as the paper counts them: of the network, and of its first block."""

    plan: Plan
    params: int
    flops: int
    block_params: int
    block_flops: int

    @property
    def block(self) -> BlockReport:
        """What theory says about the first block."""
        return report(self.plan.blocks[0].convolutions)


def size(run: Run) -> Size:
    return _size(
        run.arch, run.options, run.dataset.replace("cifar100", "cifar10")
    )  # they differ in what is not counted


@functools.cache
def _size(arch: str, options: Options, dataset: str) -> Size:
    facts = find_dataset(dataset)
    plan = make_plan(arch, options, facts.channels, facts.first_stride)
    counts = count_net(deploy_net("", plan, facts))
    block_params = parameters(plan.blocks[0].convolutions)
    outputs = (facts.size // facts.first_stride) ** 2
    return Size(plan, counts.params, counts.flops, block_params, block_params * outputs)


@dataclass(frozen=True)
class Result:
    """A run, and the records of the longest schedule it was trained on, by seed; none if it was not trained.

    shorter: records of shorter schedules, which are not shown.
    """

    run: Run
    records: tuple[Record, ...] = ()
    shorter: tuple[Record, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Mean over the seeds, in percent."""
        return statistics.fmean(record.test_accuracy for record in self.records) if self.records else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of a sample, n - 1; None for fewer than two seeds."""
        return statistics.stdev(record.test_accuracy for record in self.records) if len(self.records) > 1 else None

    @property
    def epochs(self) -> float | None:
        return self.records[0].epochs if self.records else None

    @property
    def short(self) -> bool:
        """Trained, but for fewer epochs than the paper."""
        return bool(self.records) and self.epochs < self.run.epochs

    @property
    def diverged(self) -> int:
        """Seeds that ended with a loss that is no number."""
        return sum(not math.isfinite(record.test_loss) for record in self.records)

    @property
    def schedule(self) -> str:
        """'2 seeds, 10 of 400 epochs', and what a reader must know besides."""
        if not self.records:
            return ""
        parts = [plural(len(self.records), "seed"), epochs_of(self.epochs, self.run.epochs)]
        if self.diverged:
            parts.append(f"{self.diverged} of {len(self.records)} diverged")
        return ", ".join(parts)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def epochs_of(epochs: float, paper: float) -> str:
    return f"{epochs:g} of {paper:g} epochs" if epochs < paper else f"{epochs:g} epochs"


def collect(records: Iterable[Record]) -> dict[str, Result]:
    """A Result for each run of the catalogue, by its name; runs that are the same training share their records.

    Raises Invalid for a record of no run, or of a network other than the run's.
    """
    by_name: dict[str, list[Record]] = {}
    for record in records:
        if record.name not in catalogue():
            select([record.name])  # says which names are near
            raise Invalid(f"unknown run '{record.name}'")
        _check_network(record)
        by_name.setdefault(catalogue()[record.name].trained, []).append(record)
    return {run.name: _result(run, by_name.get(run.trained, [])) for run in catalogue().values()}


def _check_network(record: Record) -> None:
    run = catalogue()[record.name]
    now = size(run)
    if (record.params, record.flops) != (now.params, now.flops):
        raise Invalid(
            f"{record.path}: its network has {record.params:,} params and {record.flops:,} FLOPs, but the catalogue's "
            f"has {now.params:,} and {now.flops:,}: remove the record and train the run again"
        )


def _result(run: Run, records: list[Record]) -> Result:
    longest = max((record.epochs for record in records), default=0)
    return Result(
        run,
        tuple(sorted((r for r in records if r.epochs == longest), key=lambda record: record.seed)),
        tuple(record for record in records if record.epochs < longest),
    )
