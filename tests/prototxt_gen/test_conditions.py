"""Equations 6 to 14 against brute force and the paper's own examples."""

import itertools
import json
import math

import numpy as np
import pytest

from prototxt_gen.blocks import divisors
from prototxt_gen.conditions import (
    Design,
    balance,
    best_layers,
    complementary,
    least_parameters,
    non_sparsity,
    parameter_bound,
    parameters,
    report,
    sweep_branches,
    sweep_layers,
    widest,
)
from prototxt_gen.group_convolution import GroupConvolution
from prototxt_gen.permutations import block_permutations, interleave, path_counts


def block(width, branches, kernel=3):
    return [GroupConvolution(width, width, width // k, 1 if i else kernel) for i, k in enumerate(branches)]


def complementary_by_definition(convolutions, perms):
    """Condition 1 word for word, on 0/1 matrices and sets of channels."""

    def branches_of(matrix):
        """(inputs, outputs) of each branch if the matrix is a group convolution, else None."""
        found = {}
        for output, row in enumerate(matrix):
            found.setdefault(frozenset(np.flatnonzero(row)), set()).add(output)
        inputs = list(found)
        disjoint = all(not (a & b) for a, b in itertools.combinations(inputs, 2))
        return list(found.items()) if disjoint and len(frozenset().union(*inputs)) == matrix.shape[1] else None

    same = np.arange(convolutions[0].inputs)
    for m in range(1, len(convolutions)):
        first = branches_of(path_counts(convolutions[:m], [same, *perms[1:m], perms[m]]) > 0)
        second = branches_of(path_counts(convolutions[m:], [same, *perms[m + 1 : -1], same]) > 0)
        if first is None or second is None:
            return False
        for (_, outputs), (inputs, _) in itertools.product(first, second):
            if len(outputs & inputs) != 1:
                return False
    return True


@pytest.mark.parametrize("group", [1, 2, 8])
def test_one_convolution_alone(group):
    found = report([GroupConvolution(8, 8, group)])
    assert (found.complementary == "") == (found.density == 1) == (group == 1)


def test_too_many_channels_are_not_examined(run_tool):
    done = run_tool("design", "check", "--width", 65536, "--channels-per-branch", "1,256,256")
    assert "complementary condition: not examined: over 4,096 channels" in done.stdout
    assert "composed kernel: not examined" in done.stdout and "Q = 34,144,256" in done.stdout


@pytest.mark.parametrize("width", [4, 6, 8, 9, 16])
def test_complementary_condition_for_all_interleaves(width):
    same, seen = np.arange(width), set()
    for layers in (2, 3):
        for branches in itertools.product(divisors(width), repeat=layers):
            for groups in itertools.product(divisors(width), repeat=layers - 1):
                convolutions = block(width, branches)
                perms = [same, *(interleave(width, g) for g in groups), same]
                expected = complementary_by_definition(convolutions, perms)
                assert (complementary(convolutions, perms) == "") == expected, (branches, groups)
                if expected:  # the paper's sketch of a proof: dense, with one path, and equation 6
                    assert (path_counts(convolutions, perms) == 1).all()
                    assert math.prod(branches) == width
                seen.add(expected)
    assert seen == {True, False}


@pytest.mark.parametrize("width", [8, 12, 36, 64, 98, 100])
def test_generated_permutations_meet_it_whenever_the_product_is_the_width(width):
    for layers in (2, 3, 4):
        for branches in itertools.product(divisors(width), repeat=layers):
            if math.prod(branches) == width:
                assert complementary(block(width, branches)) == ""


def test_a_random_permutation_fails_and_says_where():
    convolutions = block(16, (4, 4))
    perms = block_permutations(convolutions)
    perms[1] = np.random.default_rng(0).permutation(16)
    assert "branches of convolutions 1 to 1 and of 2 to 2 share" in complementary(convolutions, perms)


def test_parameters_and_bounds():
    """Equations 7 to 10; equality under the balance condition (equation 11)."""
    convolutions = block(64, (1, 8, 8))
    assert parameters(convolutions) == 64 * (9 + 8 + 8) == 1600
    assert parameter_bound(convolutions) == pytest.approx(64 * 3 * (9 * 8 * 8) ** (1 / 3))
    assert least_parameters(64, 3) == pytest.approx(64 * 3 * (9 * 64) ** (1 / 3))
    balanced = block(81, (1, 9, 9))  # S K_1 = K_2 = K_3 = 9
    assert parameters(balanced) == pytest.approx(least_parameters(81, 3)) == pytest.approx(parameter_bound(balanced))
    assert balance(balanced) == pytest.approx(1)
    for branches in itertools.product(divisors(36), repeat=3):
        assert balance(block(36, branches)) >= 1 - 1e-12
    # table 5: design II is nearer to balance than design I, and both are dense
    assert balance(block(100, (1, 10, 10))) < 1.01 < balance(block(98, (2, 7, 7)))


def test_best_number_of_layers():
    """Equation 14: log(SC) is where equation 10 is least."""
    for width in (16, 64, 256, 1024):
        layers = best_layers(width)
        assert layers == pytest.approx(math.log(9 * width))
        values = [least_parameters(width, layers * factor) for factor in (0.9, 1, 1.1)]
        assert min(values) == values[1]


def test_non_sparsity():
    assert non_sparsity(block(64, (1, 64))) == pytest.approx((9 + 64) * 64 / (9 * 64 * 64))
    assert non_sparsity([GroupConvolution(8, 8, 1, 3)]) == 1


def test_report_of_the_papers_blocks():
    for width, branches in ((144, (1, 12, 12)), (256, (1, 16, 16)), (361, (1, 19, 19)), (98, (2, 7, 7)), (64, (2, 32))):
        found = report(block(width, branches))
        assert found.complementary == "" and found.paths == (1, 1) and found.density == 1
        assert found.verdict == "met, one path"
    assert report(block(64, (1, 4, 4))).verdict == "not dense: 25%"
    assert report(block(216, (1, 8, 8, 8))).verdict == "dense, 2 to 3 paths"


def widest_by_brute_force(budget, layers, exact):
    best = None
    for width in range(1, budget // 9 + 1):
        for branches in itertools.combinations_with_replacement(divisors(width)[1:] or [1], layers - 1):
            product = math.prod(branches)
            fits = product == width if exact else product >= width
            if fits and width * (9 + sum(branches)) <= budget:
                best = max(best or (0, 0), (width, -sum(branches)))
    return best


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize("budget", [60, 333, 1000, 1600])
def test_widest_is_the_widest(budget, layers, exact):
    expected = widest_by_brute_force(budget, layers, exact)
    found = widest(budget, layers, exact=exact)
    assert (found.width, -sum(found.branches)) == expected
    assert found.parameters <= budget
    assert report(found.convolutions).paths[0] >= 1


def test_widest_finds_the_papers_networks():
    """Table 2: at the parameters of IGC-V2's blocks, no wider dense one exists."""
    for width, k in ((144, 12), (256, 16), (361, 19)):
        assert widest(width * (9 + 2 * k), 3) == Design(width, (k, k))
    assert widest(5, 3) is None


def test_sweeps():
    by_k = sweep_branches(4752, 3)
    assert Design(144, (12, 12)) in by_k
    assert all(abs(design.parameters - 4752) <= 475.2 for design in by_k)
    densities = [report(design.convolutions).density for design in by_k]
    assert densities == sorted(densities)  # denser with larger K (figure 2)
    by_l = sweep_layers(4752, 8)
    widths, sparsities = [d.width for d in by_l], [non_sparsity(d.convolutions) for d in by_l]
    assert [len(d.branches) + 1 for d in by_l] == list(range(2, 9))
    top = widths.index(max(widths))  # figure 3: width rises, then falls; non-sparsity the other way round
    assert widths[: top + 1] == sorted(widths[: top + 1]) and widths[top:] == sorted(widths[top:], reverse=True)
    assert sparsities.index(min(sparsities)) == top


def test_command(run_tool, tmp_path):
    done = run_tool("design", "check", "--width", 64, "--channels-per-branch", "1,8,8")
    assert done.returncode == 0 and "complementary condition: met" in done.stdout
    found = json.loads(run_tool("design", "widest", "--params", 4752, "--layers", 3, "--json").stdout)
    assert [(row["width"], row["branches"]) for row in found] == [(144, [12, 12])]
    assert run_tool("design", "sweep", "--params", 1600, "--layers", 3).stdout.count("\n*") == 1
    done = run_tool("design", "draw", "--width", 8, "--channels-per-branch", "2,2,2", "--out", tmp_path / "block.png")
    assert done.returncode == 0 and (tmp_path / "block.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("arguments,message", [
    ("check --width 64 --channels-per-branch 7", "nearest that do are 4 and 8"),
    ("check --width 64 --channels-per-branch a", "is not a list of numbers"),
    ("check --width 8 --channels-per-branch 2,2,2 --interleave 4", "3 convolutions have 2 permutations between"),
    ("check --width 8 --channels-per-branch 2,2 --interleave 3", "does not divide the width 8"),
    ("check --width 8 --channels-per-branch 2,2 --kernel 2", "--kernel: '2' is not an odd number from 1 on"),
    ("check --width 0 --channels-per-branch 2,2", "--width 0: a width is at least 1"),
    ("widest --params 4752 --layers 1000", "--layers 1000 is too many: at most 64"),
    ("widest --params 500 --layers 3 --kernel 0", "--kernel: '0' is not an odd number from 1 on"),
    ("sweep --params 500 --kernel 4", "--kernel: '4' is not an odd number from 1 on"),
    ("sweep --params 500 --kernel=-3", "--kernel: '-3' is not an odd number from 1 on"),
    ("widest --params 5 --layers 3", "one channel already takes 10"),
    ("widest --params 500 --layers 1", "L is 2 or more"),
    ("widest --params 10 --layers 3", "a dense kernel has so few parameters: one channel takes 11"),
    ("sweep --params 14 --layers 4", "no block of L = 4 with one K has within 10 % of so many parameters"),
    ("sweep --params 500 --up-to 1", "--up-to 1: L is 2 or more"),
    ("draw --width 1000 --channels-per-branch 1 --out x.png", "256 are the most"),
    ("draw --width 8 --channels-per-branch 2 --out /dev/null/x.png", "cannot write /dev/null/x.png"),
    ("draw --width 8 --channels-per-branch 2 --out x.foo", "cannot write x.foo: the suffix of a picture is one of"),
])  # fmt: skip
def test_wrong_input_is_one_line(run_tool, arguments, message):
    done = run_tool("design", *arguments.split())
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
