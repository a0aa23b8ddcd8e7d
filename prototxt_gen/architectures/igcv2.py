from prototxt_gen.architecture import STAGES, Architecture
from prototxt_gen.blocks import branches_of_stage, channelwise, pointwise, smallest_branch
from prototxt_gen.command_line import Invalid

# K of the three stages as the paper gives them (sections 4.3, 4.4); other widths take the smallest that is dense.
PAPER = {64: (8, 16, 32), 80: (10, 16, 20)}


class IgcV2(Architecture):
    """x x (3x3, 1); [L - 1, x, (1x1, K)]: a channel-wise 3x3, then L - 1 group 1x1 with K channels per branch."""

    title = "IGC-V2 (C{width})"
    uses = frozenset({"layers", "channels_per_branch"})

    def pointwise_layers(self, channels):
        """L - 1"""
        layers = 3 if self.options.layers is None else self.options.layers
        if layers < 2:
            raise Invalid(
                f"--layers {layers}: a block has a spatial convolution and at least one 1x1, so L is 2 or more"
            )
        return layers - 1

    def branches(self, stage, inputs, outputs):
        """K of each 1x1 convolution."""
        count = self.pointwise_layers(outputs)
        given = self.options.channels_per_branch
        if given is not None:
            return branches_of_stage(given, stage, STAGES if self.downsampling else 1, count)
        if self.width in PAPER and count == 2 and self.downsampling:
            return (PAPER[self.width][stage],) * count
        return (smallest_branch(outputs // 2 if stage else outputs, outputs, count),) * count

    def block(self, stage, inputs, outputs, stride):
        return [channelwise(inputs, stride), *pointwise(inputs, outputs, self.branches(stage, inputs, outputs))]

    def shortcut_branches(self, inputs):
        if inputs % 2:
            raise Invalid(f"{inputs} channels are odd: the shortcut has one branch for every two")
        return inputs // 2
