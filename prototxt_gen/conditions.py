"""Equations 6 to 14: when a product of group convolutions is dense, and when it has the fewest parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prototxt_gen.blocks import divisors
from prototxt_gen.command_line import Invalid
from prototxt_gen.group_convolution import GroupConvolution
from prototxt_gen.permutations import block_permutations, path_counts

MOST_LAYERS = 64  # 2^63 channels
MOST_EXAMINED = 4096  # channels: the paths between all of more take minutes and gigabytes


def parameters(convolutions: Sequence[GroupConvolution]) -> int:
    """Q = C * sum_l S_l K_l (equation 7)."""
    return sum(convolution.weights for convolution in convolutions)


def parameter_bound(convolutions: Sequence[GroupConvolution]) -> float:
    """The least Q that L convolutions of the same product can have (equation 9): L times the geometric mean."""
    return len(convolutions) * math.exp(sum(math.log(c.weights) for c in convolutions) / len(convolutions))


def least_parameters(width: int, layers: int, area: int = 9) -> float:
    """C L (S C)^(1 / L), the least Q with a dense kernel (equation 10)."""
    return width * layers * (area * width) ** (1 / layers)


def best_layers(width: int, area: int = 9) -> float:
    """L = log(S C), where equation 10 is least (equation 14)."""
    return math.log(area * width)


def balance(convolutions: Sequence[GroupConvolution]) -> float:
    """Q over its bound of equation 9: 1 where S K_1 = K_2 = ... = K_L (equation 11), larger the farther from it."""
    return parameters(convolutions) / parameter_bound(convolutions)


def non_sparsity(convolutions: Sequence[GroupConvolution]) -> float:
    """Q over the size of the dense kernel that the product stands for (figure 3)."""
    dense = convolutions[0].inputs * convolutions[-1].outputs * math.prod(c.kernel_area for c in convolutions)
    return parameters(convolutions) / dense


def complementary(convolutions: Sequence[GroupConvolution], perms: Sequence[np.ndarray] | None = None) -> str:
    """'' if the complementary condition (condition 1) holds, else where it fails.

    For every m, convolutions m .. L together are a group convolution, and so are 1 .. m-1; each branch of the one
    meets each branch of the other in exactly one channel.
    """
    perms = block_permutations(convolutions) if perms is None else perms
    if len(convolutions) == 1 and convolutions[0].group > 1:
        return f"one convolution of {convolutions[0].group} branches is not dense"
    for m in range(1, len(convolutions)):
        between = np.arange(convolutions[m].inputs)
        before = _branches(path_counts(convolutions[:m], perms[: m + 1]))
        after = _branches(path_counts(convolutions[m:], [between, *perms[m + 1 :]]).T)
        for part, branches in ((f"1 to {m}", before), (f"{m + 1} to {len(convolutions)}", after)):
            if branches is None:
                return f"convolutions {part} together are no group convolution"
        meetings = np.zeros((before.max() + 1, after.max() + 1), int)
        np.add.at(meetings, (before, after), 1)
        if (meetings != 1).any():
            return (
                f"branches of convolutions 1 to {m} and of {m + 1} to {len(convolutions)} share "
                f"{meetings.min()} to {meetings.max()} channels instead of 1"
            )
    return ""


def _branches(connections: np.ndarray) -> np.ndarray | None:
    """Number of the branch of every row, if rows that share an input share all; None if it is no group convolution."""
    reached, numbers = connections > 0, {}
    branch = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in reached])
    patterns = reached[np.unique(branch, return_index=True)[1]]
    return branch if (patterns.sum(axis=0) == 1).all() else None


@dataclass(frozen=True)
class BlockReport:
    """What theory says about a block. paths: (fewest, most) between an input and an output channel.

    paths and density are None for a block of more than MOST_EXAMINED channels.
    """

    widths: tuple[int, int]
    branches: tuple[int, ...]  # K_1, ..., K_L
    parameters: int
    complementary: str  # '' or why not
    paths: tuple[int, int] | None
    density: float | None  # share of the composed kernel that is not zero
    balance: float
    non_sparsity: float

    @property
    def verdict(self) -> str:
        if self.paths is None:
            return self.complementary
        if not self.complementary:
            return "met, one path"
        if self.paths[0]:
            return (
                f"dense, {self.paths[0]} to {self.paths[1]} paths"
                if len(set(self.paths)) > 1
                else f"dense, {self.paths[0]} paths"
            )
        return f"not dense: {self.density:.0%}"


def report(convolutions: Sequence[GroupConvolution], perms: Sequence[np.ndarray] | None = None) -> BlockReport:
    perms = block_permutations(convolutions) if perms is None else perms
    if max(max(c.inputs, c.outputs) for c in convolutions) > MOST_EXAMINED:
        unknown, extremes, density = f"not examined: over {MOST_EXAMINED:,} channels", None, None
    else:
        paths = path_counts(convolutions, perms)
        unknown, extremes, density = "", (int(paths.min()), int(paths.max())), float((paths > 0).mean())
    return BlockReport(
        (convolutions[0].inputs, convolutions[-1].outputs),
        tuple(c.branch_inputs for c in convolutions),
        parameters(convolutions),
        unknown or complementary(convolutions, perms),
        extremes,
        density,
        balance(convolutions),
        non_sparsity(convolutions),
    )


@dataclass(frozen=True)
class Design:
    """A block of one width: a channel-wise 3x3, then 1x1 group convolutions with K channels per branch."""

    width: int
    branches: tuple[int, ...]  # K_2, ..., K_L
    area: int = 9

    @property
    def convolutions(self) -> list[GroupConvolution]:
        kernel = math.isqrt(self.area)
        return [GroupConvolution(self.width, self.width, self.width, kernel)] + [
            GroupConvolution(self.width, self.width, self.width // k) for k in self.branches
        ]

    @property
    def parameters(self) -> int:
        return self.width * (self.area + sum(self.branches))

    @property
    def redundancy(self) -> float:
        """Paths per pair of channels: 1 where equation 6 holds, less than 1 where the kernel cannot be dense."""
        return math.prod(self.branches) / self.width


def widest(budget: int, layers: int, area: int = 9, exact: bool = False) -> Design | None:
    """The widest block of L convolutions with a dense kernel and at most `budget` parameters; exact: with one path.

    Of several with this width, the one with the fewest parameters. None if there is none. Raises Invalid for more
    layers than any width has a use for.
    """
    if layers > MOST_LAYERS:
        raise Invalid(f"--layers {layers} is too many: at most {MOST_LAYERS}, as every K is 2 or more")
    for width in range(budget // (area + layers - 1), 0, -1):
        # Equation 10 for the 1x1 convolutions: a cheap bound before the search.
        if width * (area + (layers - 1) * width ** (1 / (layers - 1))) > budget * (1 + 1e-9):
            continue
        found = cheapest_branches(width, layers - 1, exact)
        if found and Design(width, found, area).parameters <= budget:
            return Design(width, found, area)
    return None


def cheapest_branches(width: int, count: int, exact: bool = False) -> tuple[int, ...] | None:
    """`count` divisors of width above 1, ascending, of least sum, with width as product (or, unless exact, more)."""
    best = None
    options = divisors(width)[1:] or [1]

    def search(chosen, product, least):
        nonlocal best
        left = count - len(chosen)
        if left == 0:
            if product == width or (product > width and not exact):
                best = min(best or chosen, chosen, key=lambda ks: (sum(ks), math.prod(ks)))
            return
        need = max(0, width / product) ** (1 / left)
        if best and sum(chosen) + left * max(need, least) > sum(best):
            return
        for k in options:
            if k >= least and (left > 1 or product * k >= width):
                search((*chosen, k), product * k, k)
                if left == 1 and not exact:
                    break

    search((), 1, 1)
    return best


def sweep_branches(budget: int, layers: int, area: int = 9, tolerance: float = 0.1) -> list[Design]:
    """Figure 2: for each K, the same in all 1x1 convolutions, the multiple of K nearest to the budget.

    Only those within `tolerance` of the budget.
    """
    designs, k = [], 1
    while Design(k, (k,) * (layers - 1), area).parameters <= budget * (1 + tolerance):
        width = max(1, round(budget / (area + (layers - 1) * k) / k)) * k
        design = Design(width, (k,) * (layers - 1), area)
        if abs(design.parameters - budget) <= tolerance * budget:
            designs.append(design)
        k += 1
    return designs


def sweep_layers(budget: int, up_to: int, area: int = 9) -> list[Design]:
    """Figure 3: for L = 2 ... up_to, the widest block with a dense kernel within the budget."""
    designs = (widest(budget, layers, area) for layers in range(2, up_to + 1))
    return [design for design in designs if design]
