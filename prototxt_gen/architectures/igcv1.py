from prototxt_gen.architecture import STAGES, Architecture
from prototxt_gen.blocks import branches_of_stage, check_branch, spatial
from prototxt_gen.command_line import Invalid
from prototxt_gen.group_convolution import GroupConvolution


class IgcV1(Architecture):
    """L x (3x3, M); M x (1x1, L): a 3x3 with L primary branches of M channels, a 1x1 with M branches of L.

    L = x / 2 in every stage, so M = 2, 4, 8; or M from --channels-per-branch.
    """

    title = "IGC-V1 (C{width})"
    uses = frozenset({"channels_per_branch"})

    def primary_branches(self, stage, channels):
        given = self.options.channels_per_branch
        if given is None:
            if self.width % 2:
                raise Invalid(f"width {self.width} is odd: L = width / 2 primary branches need an even one")
            return self.width // 2
        (m,) = branches_of_stage(given, stage, STAGES if self.downsampling else 1, 1)
        return channels // check_branch(channels, m)

    def block(self, stage, inputs, outputs, stride):
        branches = self.primary_branches(stage, outputs)
        return [spatial(inputs, outputs, branches, stride), GroupConvolution(outputs, outputs, outputs // branches)]

    def shortcut_branches(self, inputs):
        return self.primary_branches(0, self.width)
