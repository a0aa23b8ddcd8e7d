"""The list of shapes that kernels are tested and timed on holds every block and shortcut of the paper's networks."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from benchmarks.group_convolution_nets import read_shapes
from prototxt_gen.architecture import Options
from prototxt_gen.complexity import count_net
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.proto import pb
from prototxt_gen.summary import PLAIN_TABLES, paper_tables

LIST = Path(__file__).resolve().parents[2] / "benchmarks" / "group_convolution_shapes.txt"


def networks():
    """Options of every network in tables 2 to 6 and figure 4, without repetitions."""
    tables = paper_tables()
    rows = [(name, row) for name in ("table4", "table6", "table3", *PLAIN_TABLES) for row in tables[name]["rows"]]
    found = []
    for table, row in rows:
        plain = table in PLAIN_TABLES
        depth = row.get("depth", tables[table].get("depth"))
        found.append((row["arch"], Options(width=row["C"], depth=depth, downsampling=False if plain else None)))
    wider, deeper = tables["figure4"]["wider"], tables["figure4"]["deeper"]
    found += [("igcv2star", Options(width=width, depth=wider["depth"])) for width in wider["C"]]
    found += [("igcv2star", Options(width=deeper["C"], depth=depth)) for depth in deeper["depth"]]
    return list(dict.fromkeys(found))


def permutation(param, channels: int) -> str:
    """The list's token for a permutation, with a blank before it; '' for the identity."""
    if param.HasField("interleave"):
        return "" if param.interleave in (1, channels) else f" i{param.interleave}" + "'" * param.inverse
    index = list(param.index)
    if not index or index == list(range(channels)):
        return ""
    assert not param.inverse
    assert index == [index[1] * c % (channels - 1) for c in range(channels - 1)] + [channels - 1]
    return f" m{index[1]}"


def stage_text(stage, channels: int) -> str:
    fields = [("g", stage.group, 1), ("k", stage.kernel_size, 1), ("s", stage.stride, 1), ("p", stage.pad, 0)]
    assert stage.dilation == 1 and not stage.bias_term
    tokens = "".join(f" {letter}{value}" for letter, value, default in fields if value != default)
    return f"{stage.num_output}{tokens}{permutation(stage.permutation, channels)}"


def shapes_of(arch: str, options: Options) -> dict[str, str]:
    """Layer name -> shape as the list writes it, for batch 64."""
    files = build(Experiment(arch, options))
    net = text_format.Parse(files.texts["deploy.prototxt"], pb.NetParameter())
    counts = count_net(net).layers
    tops = {top: shape for layer, count in zip(net.layer, counts) for top, shape in zip(layer.top, count.tops)}
    shapes = {}
    for layer in net.layer:
        if layer.type != "FusedGroupConvolution":
            continue
        chain = layer.fused_group_convolution_param
        channels, height, width = tops[layer.bottom[0]][1:]
        parts = [f"64x{channels}x{height}x{width}"]
        for stage in chain.stage:
            parts.append(stage_text(stage, channels))
            channels = stage.num_output
        out = permutation(chain.output_permutation, channels)
        shapes[layer.name] = " | ".join(parts + [f"out{out}"] * bool(out))
    return shapes


@pytest.fixture(scope="module")
def listed():
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(maxsplit=1) for line in lines)


def test_names_are_unique(listed):
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    assert len(listed) == len(lines) > 150


@pytest.mark.parametrize(
    "arch,options", networks(), ids=lambda value: value if isinstance(value, str) else f"c{value.width}-d{value.depth}"
)
def test_list_holds_every_block_and_shortcut(arch, options, listed):
    shapes = shapes_of(arch, options)
    assert len(shapes) >= options.depth - 2
    missing = {name: shape for name, shape in shapes.items() if shape not in listed.values()}
    assert not missing, f"add to {LIST.name}: {missing}"


def test_benchmark_reads_the_list(listed):
    nets = read_shapes(LIST)
    assert list(nets) == list(listed)
    for name, text in listed.items():
        shape, *stages = text.split(" | ")
        if any(token in ("b", "d2") for token in text.split()):
            continue  # not written by stage_text
        channels, written = int(shape.split("x")[1]), []
        chain = nets[name].layer[1].fused_group_convolution_param
        for stage in chain.stage:
            written.append(stage_text(stage, channels))
            channels = stage.num_output
        out = permutation(chain.output_permutation, channels)
        assert written + [f"out{out}"] * bool(out) == stages
