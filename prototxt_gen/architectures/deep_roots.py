from prototxt_gen.architecture import STAGES, Architecture
from prototxt_gen.blocks import branches_of_stage, check_branch, spatial
from prototxt_gen.command_line import Invalid
from prototxt_gen.group_convolution import GroupConvolution

ROOT = 16  # branches of the 3x3 in the first stage, halved from stage to stage ("root-16")


class DeepRoots(Architecture):
    """G x (3x3, C / G); (1x1, C): a 3x3 group convolution, then a dense 1x1 (reference [11] of the paper).

    G = 16, 8, 4 in the three stages, or from --channels-per-branch.
    """

    name = "deep-roots"
    title = "Deep roots (C{width})"
    uses = frozenset({"channels_per_branch"})

    def branches(self, stage, channels):
        given = self.options.channels_per_branch
        if given is not None:
            (k,) = branches_of_stage(given, stage, STAGES if self.downsampling else 1, 1)
            return channels // check_branch(channels, k)
        if self.width % ROOT:
            raise Invalid(f"width {self.width} is not divisible by the {ROOT} branches of the first stage")
        return ROOT >> stage

    def block(self, stage, inputs, outputs, stride):
        return [spatial(inputs, outputs, self.branches(stage, outputs), stride), GroupConvolution(outputs, outputs)]

    def shortcut_branches(self, inputs):
        return 1
