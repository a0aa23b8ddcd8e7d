"""The paper's training schedule as a SolverParameter (section 4.1)."""

import math

from prototxt_gen.blocks import divisors
from prototxt_gen.command_line import Invalid
from prototxt_gen.datasets import Dataset
from prototxt_gen.proto import pb

STEPS = (1 / 2, 3 / 4, 7 / 8)
MOST_ITERATIONS = 2**31 - 1
MOST_ADDED = 100
LEAST_OF_TEST, MOST_OF_TEST = 20, 500  # images in a test's batch, if a number in between divides the test set's


def make_solver(
    net: str,
    snapshot_prefix: str,
    dataset: Dataset,
    batch_size: int,
    test_batch_size: int,
    epochs: float,
    seed: int,
    gpu: bool,
    solver_type: str,
) -> "pb.SolverParameter":
    """Steps at 1/2, 3/4 and 7/8 of the run. It ends with a test, since that accuracy is the result.

    solver_type: Nesterov, or FusedNesterov, which is the same in one pass and in our Caffe only.
    """
    max_iter, test_interval = schedule(dataset.train, batch_size, epochs)
    display = min(100, max(1, max_iter // 20))
    solver = pb.SolverParameter(
        net=net,
        test_iter=[dataset.test // test_batch_size],
        test_interval=test_interval,
        test_initialization=False,  # before the first iteration batch norm has no moving averages to test with
        base_lr=0.1,
        lr_policy="multistep",
        gamma=0.1,
        stepvalue=[_round(max_iter * step) for step in STEPS],
        max_iter=max_iter,
        type=solver_type,
        momentum=0.9,
        weight_decay=1e-4,
        display=display,
        average_loss=display,
        snapshot=test_interval * max(1, round(max_iter / test_interval / 20)),
        snapshot_prefix=snapshot_prefix,
        random_seed=seed,
        solver_mode=pb.SolverParameter.GPU if gpu else pb.SolverParameter.CPU,
    )
    return solver


def schedule(records: int, batch_size: int, epochs: float) -> tuple[int, int]:
    """(max_iter, test_interval): a test about once an epoch, at an interval that divides max_iter.

    Where epochs * records / batch_size has no such divisor, up to a handful of iterations are added. Raises Invalid.
    """
    epoch = records / batch_size
    if epochs > (longest := (MOST_ITERATIONS - MOST_ADDED) // epoch):
        raise Invalid(f"--epochs {epochs:g}: {longest:.0f} are the most, which is as far as Caffe counts iterations")
    iterations = _round(epochs * epoch)
    if iterations < 8:
        raise Invalid(
            f"--epochs {epochs:g} is {iterations} iterations of {batch_size} images: 8 are the least that the three "
            f"steps need, that is --epochs {8 / epoch:.3g}"
        )
    if epochs <= 1:
        return iterations, iterations
    for max_iter in range(iterations, iterations + MOST_ADDED):
        intervals = [i for i in range(math.ceil(epoch / 1.5), int(epoch * 1.5) + 1) if max_iter % i == 0]
        if intervals:
            return max_iter, min(intervals, key=lambda i: abs(i - epoch))
    return iterations, iterations


def batch_of_test(records: int, wanted: int | None) -> int:
    """Test batch size: a divisor of the test set's size, so that a test sees every image once. Raises Invalid."""
    if wanted is None:
        fitting = [b for b in range(1, MOST_OF_TEST + 1) if records % b == 0]
        return max(
            (b for b in fitting if LEAST_OF_TEST <= b <= 100),
            default=min((b for b in fitting if b > 100), default=max(fitting)),
        )
    if wanted < 1 or records % wanted:
        near = sorted(sorted(divisors(records), key=lambda b: abs(b - wanted))[:2])
        raise Invalid(
            f"--test-batch-size {wanted} does not divide the {records} test images: "
            f"nearest that do are {' and '.join(map(str, near))}"
        )
    return wanted


def _round(x: float) -> int:
    return math.floor(x + 0.5)
