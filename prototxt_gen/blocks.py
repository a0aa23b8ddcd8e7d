"""The parts that blocks are made of: spatial convolutions, and 1x1 group convolutions with K channels per branch."""

from collections.abc import Sequence

from prototxt_gen.command_line import Invalid
from prototxt_gen.group_convolution import GroupConvolution


def spatial(inputs: int, outputs: int, branches: int = 1, stride: int = 1) -> GroupConvolution:
    """3x3 convolution; `branches` = inputs = outputs is the channel-wise one."""
    return GroupConvolution(inputs, outputs, branches, kernel=3, stride=stride)


def channelwise(channels: int, stride: int = 1) -> GroupConvolution:
    return spatial(channels, channels, channels, stride)


def pointwise(inputs: int, outputs: int, per_branch: Sequence[int]) -> list[GroupConvolution]:
    """1x1 group convolutions with K channels per branch; the first goes inputs -> outputs.

    Where the width changes, that one has outputs / K branches; if these do not divide the inputs, inputs / K branches.
    """
    first, *rest = (check_branch(outputs, k) for k in per_branch)
    branches = outputs // first
    if inputs % branches:
        check_branch(inputs, first)
        branches = inputs // first
    return [GroupConvolution(inputs, outputs, branches)] + [
        GroupConvolution(outputs, outputs, outputs // k) for k in rest
    ]


def check_branch(channels: int, per_branch: int) -> int:
    """`per_branch`, if so many channels per branch divide `channels`."""
    if per_branch < 1 or channels % per_branch:
        near = sorted(sorted(divisors(channels), key=lambda k: abs(k - per_branch))[:2])
        raise Invalid(
            f"{per_branch} channels per branch do not divide {channels} channels: "
            f"nearest that do are {' and '.join(map(str, near))}"
        )
    return per_branch


def smallest_branch(inputs: int, outputs: int, count: int, first: int = 1) -> int:
    """The smallest K with which a kernel is dense: `count` 1x1 convolutions after one that sees `first` channels.

    That is first * K^count >= outputs (equation 6, nearly), where the first of them may have to go from `inputs` to
    `outputs` channels with outputs / K branches.
    """
    for k in divisors(outputs)[:-1]:
        if first * k**count >= outputs and inputs % (outputs // k) == 0:
            return k
    raise Invalid(
        f"no number K of channels per branch below {outputs} divides {outputs} channels so that "
        f"{count} group convolutions compose a dense kernel"
    )


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def branches_of_stage(given: Sequence[Sequence[int]], stage: int, stages: int, count: int) -> tuple[int, ...]:
    """K of the `count` 1x1 convolutions of a stage, from the option --channels-per-branch."""
    if len(given) not in (1, stages):
        raise Invalid(f"--channels-per-branch has {len(given)} values: give one, or one for each of {stages} stages")
    per_branch = tuple(given[stage if len(given) > 1 else 0])
    if len(per_branch) not in (1, count):
        raise Invalid(
            f"--channels-per-branch {'x'.join(map(str, per_branch))}: give one K for a stage, or one for each of its "
            f"{count} 1x1 convolutions"
        )
    return per_branch * count if len(per_branch) == 1 else per_branch
