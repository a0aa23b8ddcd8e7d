from prototxt_gen.architectures.igcv2 import IgcV2
from prototxt_gen.blocks import check_branch, pointwise, smallest_branch, spatial

PRIMARY = 2  # channels per branch of the 3x3


class IgcV2I(IgcV2):
    """IGC-V2 after IGC-V1 (table 5): a 3x3 with 2 channels per branch, then L - 1 group 1x1, 2 * K^(L - 1) = C."""

    name = "igcv2-I"
    title = "IGC-V2 I (C{width})"
    downsampling = False

    def branches(self, stage, inputs, outputs):
        if self.options.channels_per_branch is not None:
            return super().branches(stage, inputs, outputs)
        count = self.pointwise_layers(outputs)
        return (smallest_branch(outputs, outputs, count, first=PRIMARY),) * count

    def block(self, stage, inputs, outputs, stride):
        branches = outputs // check_branch(outputs, PRIMARY)
        return [
            spatial(inputs, outputs, branches, stride),
            *pointwise(outputs, outputs, self.branches(stage, outputs, outputs)),
        ]
