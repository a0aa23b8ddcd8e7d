"""Paths through blocks, counted by following every single connection."""

import itertools
import math
import random

import numpy as np
import pytest
from nets import experiment, label, table_rows

from prototxt_gen.architecture import Options, make_plan
from prototxt_gen.architectures import ARCHITECTURES
from prototxt_gen.blocks import divisors
from prototxt_gen.group_convolution import GroupConvolution
from prototxt_gen.permutations import as_interleave, block_permutations, interleave, path_counts


def count_by_walking(convolutions, perms):
    """Paths from each input to each output, channel by channel."""
    paths = [[int(i == j) for j in range(convolutions[0].inputs)] for i in range(convolutions[0].inputs)]
    for convolution, perm in zip(convolutions, perms, strict=False):
        paths = [paths[c] for c in perm]
        outputs = []
        for channel in range(convolution.outputs):
            branch = channel // (convolution.outputs // convolution.group)
            size = convolution.inputs // convolution.group
            rows = paths[branch * size : (branch + 1) * size]
            outputs.append([sum(column) for column in zip(*rows, strict=False)])
        paths = outputs
    return np.array([paths[c] for c in perms[-1]])


def dense_matrices(convolutions):
    """0/1 block matrices W_l, for products with permutation matrices (equation 4)."""
    for c in convolutions:
        w = np.zeros((c.outputs, c.inputs), int)
        for g in range(c.group):
            w[g * c.branch_outputs : (g + 1) * c.branch_outputs, g * c.branch_inputs : (g + 1) * c.branch_inputs] = 1
        yield w


def same_width(width, branches):
    return [GroupConvolution(width, width, width // k) for k in branches]


@pytest.mark.parametrize("width,k", [(64, 8), (144, 12), (256, 16), (361, 19), (100, 10), (169, 13)])
def test_one_path_where_the_product_is_the_width(width, k):
    convolutions = same_width(width, (1, k, k))
    perms = block_permutations(convolutions)
    assert (count_by_walking(convolutions, perms) == 1).all()
    matrix = np.eye(width, dtype=int)
    for w, perm in zip(dense_matrices(convolutions), perms, strict=False):
        matrix = w @ np.eye(width, dtype=int)[perm] @ matrix
    assert (np.eye(width, dtype=int)[perms[-1]] @ matrix == 1).all()
    assert all(as_interleave(perm) for perm in perms)


def test_paths_of_many_layers_do_not_overflow():
    """Python's whole numbers have no end."""
    convolutions = same_width(8, (8,) * 30)
    paths = path_counts(convolutions)
    assert paths[0, 0] == 8**29 and np.array_equal(
        paths, count_by_walking(convolutions, block_permutations(convolutions))
    )


def check(convolutions):
    """Dense whenever the product of K's allows it, nothing redundant where it does not, and spread evenly."""
    perms = block_permutations(convolutions)
    for convolution, perm in zip(convolutions, perms, strict=False):
        assert sorted(perm) == list(range(convolution.inputs))
    paths = path_counts(convolutions, perms)
    product = math.prod(c.branch_inputs for c in convolutions)
    width = convolutions[0].inputs
    assert (paths.sum(axis=1) == product).all()
    assert paths.min() == product // width and paths.max() == -(-product // width), (
        convolutions,
        paths.min(),
        paths.max(),
    )


@pytest.mark.parametrize("width", [1, 2, 6, 8, 12, 30, 36, 61, 64, 72, 98, 100])
def test_any_two_or_three_branch_sizes(width):
    for layers in (1, 2, 3):
        for branches in itertools.product(divisors(width), repeat=layers):
            check(same_width(width, branches))


def test_random_blocks_with_changing_widths():
    rng = random.Random(0)
    for _ in range(400):
        channels, convolutions = rng.randint(1, 96), []
        for _ in range(rng.randint(1, 5)):
            group = rng.choice(divisors(channels))
            outputs = group * rng.randint(1, max(1, 200 // group))
            convolutions.append(GroupConvolution(channels, outputs, group))
            channels = outputs
        check(convolutions)


def test_numpy_count_is_the_walked_one():
    for convolutions in (
        same_width(36, (6, 3, 2)),
        same_width(24, (2, 3, 8)),
        [GroupConvolution(8, 24, 4), GroupConvolution(24, 12, 6), GroupConvolution(12, 12, 3)],
    ):
        perms = block_permutations(convolutions)
        assert (path_counts(convolutions, perms) == count_by_walking(convolutions, perms)).all()


def test_blocks_with_unequal_and_awkward_branches():
    check(same_width(216, (1, 8, 8, 8)))  # 8^3 = 512 > 216
    check(same_width(98, (2, 7, 7)))
    check(same_width(160, (1, 16, 16)))
    check([GroupConvolution(64, 64, 64), GroupConvolution(64, 216, 8), *same_width(216, (8, 8))])


@pytest.mark.parametrize("table,row", table_rows("table2", "table3", "table4", "table5", "table6"), ids=label)
def test_blocks_of_the_paper_are_dense(table, row):
    plan = make_plan(row["arch"], experiment(table, row).options)
    for convolutions in {block.convolutions for block in plan.blocks}:
        check(convolutions)
        assert path_counts(convolutions).min() >= 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_channels_return_to_their_place(arch):
    """With every convolution of a block replaced by the identity, nothing is left of the permutations."""
    width = 98 if arch == "igcv2-I" else 64
    plan = make_plan(arch, Options(width=width, depth=8, first_width=width))
    for block in plan.blocks:
        perms = block_permutations(block.convolutions)
        channels = np.arange(block.convolutions[0].inputs)
        for convolution, perm in zip(block.convolutions, perms, strict=False):
            channels = channels[perm]
            if convolution.inputs != convolution.outputs:
                channels = np.arange(convolution.outputs)  # the places in this output
        assert (channels[perms[-1]] == np.arange(len(channels))).all()


def test_channels_return_where_no_interleave_does_it():
    convolutions = same_width(216, (8, 8, 8))
    perms = block_permutations(convolutions)
    assert [as_interleave(perm) for perm in perms] == [1, 27, 27, None]
    channels = np.arange(216)
    for perm in perms:
        channels = channels[perm]
    assert (channels == np.arange(216)).all()


def test_interleave_is_that_of_figure_1():
    """Eight channels in four branches of two: the first channel of every branch, then the second."""
    assert interleave(8, 4).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    for channels in (1, 2, 12, 30):
        for branches in divisors(channels):
            found = as_interleave(interleave(channels, branches))
            assert (interleave(channels, found) == interleave(channels, branches)).all()
    assert as_interleave(np.array([1, 0, 2])) is None
    assert as_interleave(np.array([0, 2, 1, 3, 4, 5])) is None
