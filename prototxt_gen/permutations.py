"""The permutations P_l between the group convolutions of a block (equation 4, figure 1).

A permutation is an array `perm` of channel numbers: channel i after it is channel perm[i] before it.

After convolution l, with G_l branches, the channels are interleaved by G_l: first the first channel of every branch,
then the second of every branch, and so on. A branch of convolution l + 1 is K_{l+1} channels in a row, so it takes
channels from K_{l+1} branches in a row, around the end if need be. By induction, a branch after m convolutions reaches
K_2 K_3 ... K_m branches of the first convolution in a row, around the end: each of the G_1 branches floor or ceil of
K_2 ... K_m / G_1 times. That is dense as soon as the product of all K reaches the number of input channels, spreads
what is left over as evenly as can be, and is exactly one path where the product equals the width. (The wrap at G_l does
no harm: K_l G_l channels are a whole number of turns around the branches before.) None of this needs equal widths or
equal K.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from prototxt_gen.group_convolution import GroupConvolution


def interleave(channels: int, branches: int) -> np.ndarray:
    """perm[j * G + g] = g * (C / G) + j: channel j of branch g goes to place g of branch j."""
    return np.arange(channels).reshape(branches, -1).T.ravel()


def as_interleave(perm: np.ndarray) -> int | None:
    """The number of branches if `perm` is an interleave (1 for the identity), else None."""
    channels = len(perm)
    step = int(perm[1]) if channels > 1 else 1
    if step == 0 or channels % step:
        return None
    branches = channels // step if step > 1 else 1
    return branches if np.array_equal(perm, interleave(channels, branches)) else None


def permutation(param, channels: int) -> np.ndarray:
    """The array that a ChannelPermutationParameter describes."""
    perm = np.array(param.index) if param.index else interleave(channels, param.interleave or 1)
    return np.argsort(perm) if param.inverse else perm


def block_permutations(convolutions: Sequence[GroupConvolution]) -> list[np.ndarray]:
    """L + 1 permutations for L convolutions: the one before each, then the one after the last.

    The last one undoes all before it, so that the channels return to their place; where the block changes the width, to
    their place in the output of the convolution that changes it.
    """
    perms = [np.arange(convolutions[0].inputs)]
    place = perms[0]
    for before, after in itertools.pairwise(convolutions):
        # Beside a convolution of one branch every order is as good.
        perm = np.arange(after.inputs) if after.group == 1 else interleave(after.inputs, before.group)
        place = perm if before.inputs != before.outputs else place[perm]
        perms.append(perm)
    if convolutions[-1].inputs != convolutions[-1].outputs:
        place = np.arange(convolutions[-1].outputs)
    return [*perms, np.argsort(place)]


def path_counts(convolutions: Sequence[GroupConvolution], perms: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """outputs x inputs: the number of paths from each input channel to each output channel of a block."""
    perms = block_permutations(convolutions) if perms is None else perms
    most = math.prod(convolution.branch_inputs for convolution in convolutions)
    whole_numbers = np.int64 if most < 2**63 else object  # of any size
    paths = np.eye(convolutions[0].inputs, dtype=whole_numbers)
    for convolution, perm in zip(convolutions, perms, strict=False):
        # W_l times a matrix: sums over the rows of a branch, the same for all outputs of the branch
        sums = paths[perm].reshape(convolution.group, convolution.branch_inputs, -1).sum(axis=1)
        paths = sums.repeat(convolution.branch_outputs, axis=0)
    return paths[perms[-1]]
