"""A group convolution as the theory sees it: a block-sparse matrix W_l (equation 3)."""

from dataclasses import dataclass

from prototxt_gen.command_line import Invalid


@dataclass(frozen=True)
class GroupConvolution:
    """`group` branches; branch g maps inputs/group channels to outputs/group channels."""

    inputs: int
    outputs: int
    group: int = 1
    kernel: int = 1
    stride: int = 1

    def __post_init__(self):
        if self.group < 1 or self.inputs % self.group or self.outputs % self.group:
            raise Invalid(
                f"a convolution from {self.inputs} to {self.outputs} channels cannot have {self.group} branches: "
                "the number must divide both"
            )

    @property
    def branch_inputs(self) -> int:
        """K_l: the channels that each output channel sees."""
        return self.inputs // self.group

    @property
    def branch_outputs(self) -> int:
        return self.outputs // self.group

    @property
    def kernel_area(self) -> int:
        """S of equation 7."""
        return self.kernel**2

    @property
    def weights(self) -> int:
        """Number of non-zero entries of W_l, S counted: outputs * K_l * S."""
        return self.outputs * self.branch_inputs * self.kernel_area
