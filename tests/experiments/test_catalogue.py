"""The catalogue beside the paper's tables and the theory of blocks, and every network of it through one iteration."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.catalogue import catalogue, select
from prototxt_gen.architecture import make_plan
from prototxt_gen.command_line import Invalid
from prototxt_gen.conditions import sweep_branches, sweep_layers
from prototxt_gen.datasets import BUILT_IN
from prototxt_gen.experiment import build
from prototxt_gen.summary import PLAIN_TABLES, paper_tables

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("table2", "table3", "table4", "table5", "table6")


def runs_of(table):
    return [run for run in catalogue().values() if run.table == table]


def plan(run, **changes):
    return make_plan(run.arch, replace(run.options, **changes), first_stride=BUILT_IN[run.dataset].first_stride)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_a_table_is_there_for_each_data_set(table):
    facts = paper_tables()[table]
    printed = {
        (row["arch"], row["C"], row.get("depth", facts.get("depth")), dataset, *row[dataset])
        for row in facts["rows"]
        for dataset in BUILT_IN
        if dataset in row
    }
    listed = [(r.arch, r.width, r.depth, r.dataset, r.paper, r.deviation) for r in runs_of(table)]
    assert set(listed) == printed and len(listed) == len(printed)
    assert {run.downsampling for run in runs_of(table)} == {table not in PLAIN_TABLES}


def test_our_row_of_table_7_is_there_as_accuracy():
    (row,) = (row for row in paper_tables()["table7"]["rows"] if row["system"] == "IGC-V2*-C416")
    for run in runs_of("table7"):
        assert (run.arch, run.width, run.depth) == ("igcv2star", 416, row["depth"])
        assert run.paper == pytest.approx(100 - row[run.dataset])
    assert {run.dataset for run in runs_of("table7")} == {"cifar10", "cifar100", "tiny-imagenet"}


def test_figure_4_goes_wider_and_deeper():
    figure = paper_tables()["figure4"]
    wider = {(c, figure["wider"]["depth"]) for c in figure["wider"]["C"]}
    deeper = {(figure["deeper"]["C"], d) for d in figure["deeper"]["depth"]}
    assert {(run.width, run.depth) for run in runs_of("figure4")} == wider | deeper
    assert {run.arch for run in runs_of("figure4")} == {figure["arch"]}


@pytest.mark.parametrize("layers", [3, 4, 5])
def test_figure_2_has_blocks_of_one_budget_and_marks_the_nearest_to_the_condition(layers):
    sweep = {design.branches: design for design in sweep_branches(3000, layers)}
    runs = [run for run in runs_of("figure2") if run.L == str(layers)]
    found = [sweep[(int(run.K),) * (layers - 1)] for run in runs]
    assert [design.width for design in found] == [run.width for run in runs]
    (marked,) = (design for design, run in zip(found, runs, strict=True) if run.nearest)
    assert marked == min(sweep.values(), key=lambda design: abs(design.redundancy - 1))
    redundancies = [design.redundancy for design in found]
    assert min(redundancies) < marked.redundancy < max(redundancies)  # bars on both sides of it


def test_figure_3_has_the_widest_block_of_the_budget_for_every_l():
    designs = sweep_layers(4752, 8)
    for run, design in zip(runs_of("figure3"), designs, strict=True):
        (stage,) = run.options.channels_per_branch
        assert run.width == design.width and int(run.L) == len(design.branches) + 1
        assert stage * (len(design.branches) // len(stage)) == design.branches


@pytest.mark.parametrize("table", [*TABLES, "table7", "figure4"])
def test_k_and_l_are_those_that_the_generators_give_without_being_asked(table):
    """The generators' own K and L are checked against the printed counts in test_fidelity.py."""
    for run in runs_of(table):
        own = plan(run)
        assert own == plan(run, layers=None, channels_per_branch=None), run.name
        layers = run.L.split() * (1 if " " in run.L else 3)
        assert {int(n) for n in layers} == {len(block.convolutions) for block in own.blocks}, run.name


def test_names_say_table_network_and_data_set():
    with open(ROOT / "experiments" / "catalogue.csv") as file:
        assert len(catalogue()) == len(file.readlines()) - 1  # no name twice
    for run in catalogue().values():
        network = f"{run.arch.replace('-', '_')}_c{run.width}_d{run.depth}"
        assert run.name.startswith(f"{run.table}/{network}_") and run.name.endswith(run.dataset.replace("-", "_"))


def test_rows_of_the_same_network_are_trained_once():
    networks = {}
    for run in catalogue().values():
        networks.setdefault((plan(run).units, plan(run).first, run.dataset), []).append(run)
    for runs in networks.values():
        (trained,) = {run.trained for run in runs}  # equal networks, one training
        assert catalogue()[trained] in runs and not catalogue()[trained].same_as


def test_select():
    assert [run.name for run in select(["table4/*_d8_cifar100"])] == [
        "table4/xception_c35_d8_cifar100",
        "table4/igcv2_c64_d8_cifar100",
    ]
    assert len(select(["*", "table4/*"])) == len(catalogue())
    with pytest.raises(Invalid, match="unknown run 'table4/igcv2_c46_d8_cifar100': did you mean table4/igcv2_c64_d8"):
        select(["table4/igcv2_c46_d8_cifar100"])


def test_every_run_generates_and_every_network_loads_and_takes_a_step(lmdb_of_noise, tmp_path):
    solvers = {}
    for run in catalogue().values():
        small = {"batch_size": 1, "test_batch_size": 1, "epochs": 1, "data_dir": tmp_path / "data"}
        files = build(run.experiment(out=tmp_path / run.name, **small))
        files.write()
        # CIFAR-10 and CIFAR-100 differ in the classifier alone
        solvers.setdefault((plan(run).units, plan(run).first), files.folder / "solver.prototxt")
    for name in ("cifar10", "cifar100", "tiny-imagenet"):
        lmdb_of_noise(tmp_path / "data" / name, BUILT_IN[name].size)
    command = [sys.executable, Path(__file__).with_name("run_solvers.py"), *solvers.values()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(solvers) > 80
    for solver, result in zip(solvers.values(), results, strict=True):
        assert result == {"iteration": 1, "finite": True, "unmoved": []}, solver
