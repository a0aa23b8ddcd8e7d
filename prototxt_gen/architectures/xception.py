from prototxt_gen.architecture import Architecture
from prototxt_gen.blocks import channelwise
from prototxt_gen.group_convolution import GroupConvolution


class Xception(Architecture):
    """x x (3x3, 1); (1x1, x): a channel-wise 3x3, then a dense 1x1."""

    title = "Xception (C{width})"

    def first_width(self):
        # "we fix the channel number at the first convolutional layer in Xception as 35" (section 4.3)
        return 35 if self.downsampling else self.width

    def block(self, stage, inputs, outputs, stride):
        return [channelwise(inputs, stride), GroupConvolution(inputs, outputs)]

    def shortcut_branches(self, inputs):
        return 1
