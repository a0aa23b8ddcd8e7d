from prototxt_gen.architecture import Architecture
from prototxt_gen.blocks import spatial


class ResNet(Architecture):
    """(3x3, x): the regular convolutions of the residual network, for comparison."""

    title = "ResNet (C{width})"

    def block(self, stage, inputs, outputs, stride):
        return [spatial(inputs, outputs, stride=stride)]

    def shortcut_branches(self, inputs):
        return 1
