"""What a network of the paper is made of (table 1), before it becomes prototxt; see architectures/."""

from dataclasses import dataclass, field, replace

from prototxt_gen.blocks import spatial
from prototxt_gen.command_line import Invalid, unknown
from prototxt_gen.group_convolution import GroupConvolution

STAGES = 3


@dataclass(frozen=True)
class Options:
    """What make_net's options say about the network; None stands for the architecture's default."""

    width: int = 64  # x of table 1: channels of the first stage
    depth: int = 20
    layers: int | None = None  # L: group convolutions in a block
    channels_per_branch: tuple[tuple[int, ...], ...] | None = (
        None  # K: per stage; in it one, or one per 1x1 convolution
    )
    first_width: int | None = None  # output channels of the first convolution
    downsampling: bool | None = None
    layers_from: str = "each-stage"  # IGC-V2*: L* from the width of each stage, or of the first-stage


@dataclass(frozen=True)
class Block:
    name: str
    convolutions: tuple[GroupConvolution, ...]


@dataclass(frozen=True)
class Unit:
    """Blocks under one skip connection; shortcut: the convolution on it where the width changes."""

    blocks: tuple[Block, ...]
    skip: bool
    shortcut: Block | None = None


@dataclass(frozen=True)
class Plan:
    title: str
    first: GroupConvolution
    units: tuple[Unit, ...]
    skips: bool = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "skips", any(unit.skip for unit in self.units))

    @property
    def blocks(self) -> list[Block]:
        return [block for unit in self.units for block in unit.blocks]


class Architecture:
    """A column of table 1. Subclasses say what a block is; the rest of the network is common to all.

    Attributes to set: `title`, shown with the width; `downsampling`, False for a net of one width without skips;
    `uses`, the options it understands beside width and depth.
    """

    title = ""
    downsampling = True
    uses: frozenset[str] = frozenset()

    def __init__(self, options: Options):
        self.options = options
        self.width = options.width
        if options.downsampling is not None:
            self.downsampling = options.downsampling

    def first_width(self) -> int:
        """Channels of the first convolution."""
        return self.width

    def block(self, stage: int, inputs: int, outputs: int, stride: int) -> list[GroupConvolution]:
        """The group convolutions of one block of stage 0, 1 or 2, without the permutations."""
        raise NotImplementedError

    def shortcut_branches(self, inputs: int) -> int:
        """Branches of the 1x1 projection on a shortcut."""
        raise NotImplementedError

    def plan(self, channels: int, first_stride: int) -> Plan:
        """The whole network for images of so many channels. Raises Invalid."""
        first_width = self.first_width() if self.options.first_width is None else self.options.first_width
        first = spatial(channels, first_width, stride=first_stride)
        count = blocks_per_stage(self.options.depth)
        if not self.downsampling:
            count, stages = STAGES * count, 1
        else:
            stages = STAGES
        units, inputs = [], first_width
        for stage in range(stages):
            outputs = self.width << stage
            blocks = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                convolutions = tuple(self.block(stage, inputs, outputs, stride))
                blocks.append(Block(f"stage{stage + 1}_block{index + 1}", convolutions))
                inputs = outputs
            units += self._units(stage, blocks)
        return Plan(self.title.format(width=self.width), first, tuple(units))

    def _units(self, stage: int, blocks: list[Block]) -> list[Unit]:
        """Skips span two blocks; with an odd number of blocks the last one has none."""
        if not self.downsampling:
            return [Unit((block,), skip=False) for block in blocks]
        units = []
        for i in range(0, len(blocks), 2):
            pair = tuple(blocks[i : i + 2])
            first = pair[0].convolutions[0]
            inputs, outputs = first.inputs, pair[0].convolutions[-1].outputs
            skip, shortcut = len(pair) == 2, None
            if inputs != outputs:
                # The counts leave no room for a projection in the first stage.
                skip = skip and stage > 0
                if skip:
                    shortcut = Block(
                        f"stage{stage + 1}_shortcut",
                        (GroupConvolution(inputs, outputs, self.shortcut_branches(inputs), stride=first.stride),),
                    )
            units.append(Unit(pair, skip, shortcut))
        return units


def blocks_per_stage(depth: int) -> int:
    """B of depth = 3B + 2."""
    if depth < 5 or (depth - 2) % STAGES:
        low = max(5, depth - (depth - 2) % STAGES)
        near = str(low) if depth < 5 else f"{low} or {low + STAGES}"
        raise Invalid(f"depth {depth} is not 3B + 2 with B blocks in each of three stages: nearest are {near}")
    return (depth - 2) // STAGES


def make_plan(arch: str, options: Options, channels: int = 3, first_stride: int = 1) -> Plan:
    """The network `arch` under `options`. Raises Invalid, naming the nearest widths that work."""
    from prototxt_gen.architectures import ARCHITECTURES

    if arch not in ARCHITECTURES:
        raise unknown("architecture", arch, ARCHITECTURES)
    cls = ARCHITECTURES[arch]
    for option in ("layers", "channels_per_branch", "layers_from"):
        if getattr(options, option) not in (None, Options.layers_from) and option not in cls.uses:
            raise Invalid(
                f"{arch} has no --{option.replace('_', '-')}: architectures that have it are "
                + ", ".join(name for name, c in ARCHITECTURES.items() if option in c.uses)
            )
    for option, width in (("width", options.width), ("first-width", options.first_width)):
        if width is not None and width < 1:
            raise Invalid(f"--{option} {width}: a width is at least 1")
    try:
        return cls(options).plan(channels, first_stride)
    except Invalid as error:
        near = _nearest_widths(cls, options, channels)
        raise Invalid(f"{arch}: {error}" + (f"; nearest widths that work: {near}" if near else "")) from None


def _nearest_widths(cls, options: Options, channels: int) -> str:
    def works(width):
        try:
            cls(replace(options, width=width)).plan(channels, 1)
        except Invalid:
            return False
        return True

    below = next((w for w in range(options.width - 1, max(0, options.width - 200), -1) if works(w)), None)
    above = next((w for w in range(options.width + 1, options.width + 200) if works(w)), None)
    return ", ".join(str(w) for w in (below, above) if w)
