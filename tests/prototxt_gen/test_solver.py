"""The solver against the paper's schedule (section 4.1)."""

import pytest
from google.protobuf import text_format

from prototxt_gen.datasets import BUILT_IN
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.proto import pb
from prototxt_gen.solver import batch_of_test, schedule


def solver_of(**changes):
    return text_format.Parse(build(Experiment("igcv2", **changes)).texts["solver.prototxt"], pb.SolverParameter())


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny-imagenet"])
def test_the_papers_run(dataset):
    solver = solver_of(dataset=dataset)
    assert (solver.type, solver.lr_policy) == ("FusedNesterov", "multistep")
    assert (solver.base_lr, solver.momentum, solver.weight_decay, solver.gamma) == pytest.approx((0.1, 0.9, 1e-4, 0.1))
    assert solver.max_iter == 312_500 and list(solver.stepvalue) == [156_250, 234_375, 273_438]
    assert solver.test_iter[0] * 100 == 10_000
    assert solver.max_iter % solver.test_interval == 0  # the last iteration is tested
    assert solver.snapshot % solver.test_interval == 0 and 10 <= solver.max_iter / solver.snapshot <= 40
    assert solver.random_seed == 1 and solver.solver_mode == pb.SolverParameter.CPU
    assert solver.average_loss == solver.display == 100
    assert not solver.test_initialization
    assert solver.HasField("snapshot_prefix") and solver.HasField("net")


def test_stock_layers_come_with_a_stock_solver():
    """Any Caffe can train them."""
    fused, stock = solver_of(), solver_of(engine="stock")
    assert stock.type == "Nesterov"
    for solver in (fused, stock):
        for name in ("type", "net", "snapshot_prefix"):
            solver.ClearField(name)
    assert fused == stock


def test_options():
    solver = solver_of(seed=7, gpu=True, batch_size=128, epochs=100)
    assert solver.random_seed == 7 and solver.solver_mode == pb.SolverParameter.GPU
    assert solver.max_iter == pytest.approx(100 * 50_000 / 128, rel=1e-3)


@pytest.mark.parametrize("epochs", [0.1, 1, 2, 3, 5, 7.5, 10, 30, 100, 199, 400])
@pytest.mark.parametrize("dataset", ["cifar100", "fashion-mnist", "tiny-imagenet"])
def test_epochs_keep_the_shape(dataset, epochs):
    solver, size = solver_of(dataset=dataset, epochs=epochs), BUILT_IN[dataset].train
    wanted = epochs * size / 64
    assert -0.5 <= solver.max_iter - wanted <= max(1, wanted * 2e-3)
    for step, part in zip(solver.stepvalue, (1 / 2, 3 / 4, 7 / 8), strict=True):
        assert step == pytest.approx(solver.max_iter * part, abs=0.5)
    assert solver.max_iter % solver.test_interval == 0
    assert solver.test_interval <= 1.6 * size / 64
    assert 20 <= solver.max_iter / solver.display  # a curve, however short the run


def test_schedule_of_many_sizes():
    for records in (1000, 9999, 50_000, 73_257):
        for epochs in (1.5, 4, 13, 60):
            max_iter, interval = schedule(records, 64, epochs)
            assert max_iter % interval == 0 and 0.5 < interval * 64 / records < 2


def test_test_batches_see_every_image_once():
    for records in (10_000, 8, 26_032, 7919, 340, 1_000_000):
        batch = batch_of_test(records, None)
        assert records % batch == 0 and batch <= 500
    assert batch_of_test(10_000, None) == 100 and batch_of_test(10_000, 250) == 250
