from prototxt_gen.architecture import STAGES
from prototxt_gen.architectures.igcv2 import IgcV2
from prototxt_gen.blocks import branches_of_stage
from prototxt_gen.command_line import Invalid


class IgcV2Star(IgcV2):
    """IGC-V2 with K = 8 everywhere, L* = ceil(log_K(x)) + 1, and 64 channels in the first convolution.

    x is the width of each stage, or of the first stage (--layers-from): the paper's counts lie between the two.
    """

    title = "IGC-V2* (C{width})"
    uses = IgcV2.uses | {"layers_from"}

    def first_width(self):
        return 64 if self.downsampling else self.width

    def branches(self, stage, inputs, outputs):
        given = self.options.channels_per_branch or ((8,),)
        stages = STAGES if self.downsampling else 1
        per_branch = given[stage if len(given) == stages else 0]
        if self.options.layers is not None:
            count = self.pointwise_layers(outputs)
        elif len(per_branch) > 1:
            count = len(per_branch)
        else:
            count = ceil_log(outputs if self.options.layers_from == "each-stage" else self.width, per_branch[0])
        return branches_of_stage(given, stage, stages, count)


def ceil_log(x: int, base: int) -> int:
    """ceil(log_base(x)), at least 1."""
    if base < 2:
        raise Invalid(f"K = {base}: L* = ceil(log_K(x)) + 1 needs a K of 2 or more")
    count = 1
    while base**count < x:
        count += 1
    return count
