"""Writes layers into a NetParameter: convolution + batch norm + ReLU, residual units, inputs, classifier.

All in our fused layers; to_stock.py rewrites a net into plain Caffe layers.
"""

from collections.abc import Sequence

import numpy as np

from prototxt_gen.architecture import Block, Plan, Unit
from prototxt_gen.group_convolution import GroupConvolution
from prototxt_gen.permutations import as_interleave, block_permutations
from prototxt_gen.proto import pb

BATCH_NORM_EPS = 2e-5


class NetWriter:
    """Appends layers to `net`. The methods return the name of the blob they write.

    A skip connection starts at the convolution that reads the blob first, as its second top. In the backward pass that
    convolution adds the connection's gradient and takes the ReLU's, which the batch norm before it is spared.
    """

    def __init__(self, name: str):
        self.net = pb.NetParameter(name=name)

    def layer(self, kind: str, name: str, bottoms: Sequence[str], tops: Sequence[str] = ()) -> "pb.LayerParameter":
        return self.net.layer.add(name=name, type=kind, bottom=bottoms, top=tops or [name])

    def block(self, block: Block, bottom: str, skip: bool = False) -> str:
        """Group convolutions in a row with the permutations between them; skip: bottom once more as `bottom`_skip."""
        tops = [block.name, f"{bottom}_skip"] if skip else [block.name]
        param = self.layer("FusedGroupConvolution", block.name, [bottom], tops).fused_group_convolution_param
        perms = block_permutations(block.convolutions)
        for convolution, perm in zip(block.convolutions, perms, strict=False):
            stage = param.stage.add()
            _write_stage(stage, convolution)
            write_permutation(stage, "permutation", perm)
        write_permutation(param, "output_permutation", perms[-1])
        if skip:
            param.bottom_relu = True
        return block.name

    def batch_norm(
        self, bottom: str, average: float, residual: str | None = None, relu: bool = True, skip: bool = False
    ) -> str:
        """Batch norm with scale and shift, the residual's addition, ReLU; skip: the next block gets `skip` too."""
        name = f"{bottom}_bn"
        bottoms = [bottom] if residual is None else [bottom, residual]
        # In place but where the top's gradient stays, as the residual's.
        top = name if residual and skip else bottom
        param = self.layer("FusedBatchNorm", name, bottoms, [top]).fused_batch_norm_param
        param.moving_average_fraction, param.eps = average, BATCH_NORM_EPS
        if relu:
            param.relu = True
        if skip:
            param.relu_gradient = False
        return top

    def unit(self, unit: Unit, bottom: str, average: float, skip: bool) -> str:
        """Blocks, each with batch norm and ReLU; the last ReLU comes after the addition of what skips them.

        skip: the next unit has a skip connection too.
        """
        first, *others = unit.blocks
        top = self.block(first, bottom, unit.skip)
        for block in others:
            top = self.block(block, self.batch_norm(top, average))
        residual = f"{bottom}_skip" if unit.skip else None
        if unit.shortcut:
            residual = self.batch_norm(self.block(unit.shortcut, residual), average, relu=False)
        return self.batch_norm(top, average, residual, skip=skip)

    def network(self, plan: Plan, classes: int, bottom: str = "data") -> str:
        """All between the image and the classes' scores."""
        average = 0.9 if plan.skips else 0.99
        skips = [unit.skip for unit in plan.units] + [False]
        top = self.batch_norm(self.block(Block("conv1", (plan.first,)), bottom), average, skip=skips[0])
        for unit, skip in zip(plan.units, skips[1:], strict=True):
            top = self.unit(unit, top, average, skip)
        pool = self.layer("Pooling", "pool", [top]).pooling_param
        pool.pool, pool.global_pooling = pb.PoolingParameter.AVE, True
        param = self.layer("InnerProduct", "fc", ["pool"]).inner_product_param
        param.num_output = classes
        limit = plan.blocks[-1].convolutions[-1].outputs ** -0.5
        param.weight_filler.type, param.weight_filler.min, param.weight_filler.max = "uniform", -limit, limit
        return "fc"


def _write_stage(stage, convolution: GroupConvolution):
    stage.num_output = convolution.outputs
    if convolution.group > 1:
        stage.group = convolution.group
    if convolution.kernel > 1:
        stage.kernel_size, stage.pad = convolution.kernel, convolution.kernel // 2
    if convolution.stride > 1:
        stage.stride = convolution.stride
    stage.bias_term = False
    stage.weight_filler.type = "msra"  # gaussian of variance 2 / fan_in; Caffe sees the fan-in of one group


def write_permutation(message, field: str, perm: np.ndarray):
    """Sets a ChannelPermutationParameter: nothing for the identity, an interleave where it is one, else the list."""
    branches = as_interleave(perm)
    if branches is None:
        getattr(message, field).index.extend(perm.tolist())
    elif branches > 1:
        getattr(message, field).interleave = branches
