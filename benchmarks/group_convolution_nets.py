"""One-layer nets: what bench_group_convolution.py and the tests compute, from group_convolution_shapes.txt."""

from pathlib import Path

from prototxt_gen.proto import pb


def read_shapes(path: Path) -> dict[str, "pb.NetParameter"]:
    """A net with an input and one FusedGroupConvolution per line; the file explains its format."""
    nets = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        head, *stages = [part.split() for part in line.split("|")]
        name, shape = head[0], [int(n) for n in head[1].split("x")]
        net = pb.NetParameter(name=name, force_backward=True)
        source = net.layer.add(name="data", type="Input", top=["data"])
        source.input_param.shape.add(dim=shape)
        block = net.layer.add(name="block", type="FusedGroupConvolution", bottom=["data"], top=["block"])
        param, channels = block.fused_group_convolution_param, shape[1]
        for tokens in stages:
            if tokens[0] == "out":
                permute(tokens[1], channels, param.output_permutation)
            else:
                channels = add_stage(tokens, channels, param)
        nets[name] = net
    return nets


def add_stage(tokens: list[str], inputs: int, param) -> int:
    """Returns the stage's output channels."""
    fields = {"g": "group", "k": "kernel_size", "s": "stride", "p": "pad", "d": "dilation"}
    stage = param.stage.add(num_output=int(tokens[0]), bias_term="b" in tokens)
    stage.weight_filler.type = "msra"
    for token in tokens[1:]:
        if token[0] in fields:
            setattr(stage, fields[token[0]], int(token[1:]))
        elif token != "b":
            permute(token, inputs, stage.permutation)
    return stage.num_output


def permute(token: str, channels: int, permutation):
    number = int(token[1:].rstrip("'"))
    if token[0] == "i":
        permutation.interleave = number
    else:
        permutation.index.extend([number * c % (channels - 1) for c in range(channels - 1)] + [channels - 1])
    permutation.inverse = token.endswith("'")


def permutation_net(shape: tuple[int, ...], branches: int) -> "pb.NetParameter":
    net = pb.NetParameter(name="permutation", force_backward=True)
    net.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(dim=shape)
    layer = net.layer.add(name="permutation", type="ChannelPermutation", bottom=["data"], top=["top"])
    layer.channel_permutation_param.interleave = branches
    return net
