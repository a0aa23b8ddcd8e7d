"""The make_net command: what it writes, prints and refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from google.protobuf import text_format
from nets import experiment, net_of, table_rows

from prototxt_gen.architecture import Options
from prototxt_gen.architectures import ARCHITECTURES
from prototxt_gen.command_line import Invalid
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.proto import pb, read_net

FILES = {"train_val.prototxt", "deploy.prototxt", "solver.prototxt", "readme.md"}


def test_writes_the_four_files_and_says_so(run_tool, tmp_path):
    done = run_tool("make_net", "--arch", "igcv2", "--width", 64, "--out", "net")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "net").iterdir()} == FILES
    for text in ("#Params 148,864 (0.149 M)", "FLOPs 26,189,824", "paper, table4: #Params 0.149 M   FLOPs 0.262 x 10^8",
                 "met, one path", "312,500 iterations", "readme.md written"):  # fmt: skip
        assert text in done.stdout
    solver = text_format.Parse((tmp_path / "net" / "solver.prototxt").read_text(), pb.SolverParameter())
    assert Path(solver.net) == tmp_path / "net" / "train_val.prototxt"  # outside the project: absolute
    again = run_tool("make_net", "--arch", "igcv2", "--width", 64, "--out", "net")
    assert again.returncode == 0 and "up to date" in again.stdout


def test_never_overwrites_unasked(run_tool, tmp_path):
    run_tool("make_net", "--arch", "igcv2", "--out", "net")
    (tmp_path / "net" / "x_iter_5.solverstate").write_text("a snapshot")
    before = {path.name: path.read_text() for path in (tmp_path / "net").iterdir()}
    done = run_tool("make_net", "--arch", "igcv2", "--seed", 2, "--out", "net")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--force replaces it" in done.stderr
    assert {path.name: path.read_text() for path in (tmp_path / "net").iterdir()} == before
    done = run_tool("make_net", "--arch", "igcv2", "--seed", 2, "--out", "net", "--force")
    assert done.returncode == 0 and "random_seed: 2" in (tmp_path / "net" / "solver.prototxt").read_text()
    assert (tmp_path / "net" / "x_iter_5.solverstate").read_text() == "a snapshot"


def test_summary_only_and_json(run_tool, tmp_path):
    done = run_tool("make_net", "--arch", "xception", "--width", 58, "--summary-only", "--json")
    summary = json.loads(done.stdout)
    assert summary["params"] == 443_626 and summary["paper"][0]["table"] == "table3"
    assert summary["schedule"]["stepvalue"] == [156_250, 234_375, 273_438] and not list(tmp_path.iterdir())


def test_from_a_clone_paths_are_relative_to_its_root(tmp_path):
    """A copy of the clone: `caffe train -solver experiments/...` works from its root, wherever make_net ran."""
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "prototxt_gen", clone / "prototxt_gen", ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "caffe_layers").mkdir()
    elsewhere.mkdir()
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path) != ROOT]
    command = [
        sys.executable,
        clone / "prototxt_gen" / "make_net.py",
        "--arch",
        "igcv1",
        "--width",
        "48",
        "--depth",
        "8",
    ]
    subprocess.run(
        command,
        cwd=elsewhere,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    folder = clone / "experiments" / "igcv1_c48_d8_cifar100"
    assert {path.name for path in folder.iterdir()} == FILES
    solver = text_format.Parse((folder / "solver.prototxt").read_text(), pb.SolverParameter())
    assert solver.net == "experiments/igcv1_c48_d8_cifar100/train_val.prototxt"
    assert solver.snapshot_prefix == "experiments/igcv1_c48_d8_cifar100/igcv1_c48_d8_cifar100"
    assert read_net(folder / "train_val.prototxt").layer[0].augmented_data_param.source == "data/cifar100/train_lmdb"


def test_git_ignores_what_make_net_writes_by_default():
    """Else every later record would be one of uncommitted code."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    folders = [
        Experiment(arch=arch, options=Options(width=64, depth=20), dataset=dataset).folder
        for arch in ARCHITECTURES
        for dataset in ("cifar100", "data/my-pictures")
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", *[f"{folder}/" for folder in folders]], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert ignored.splitlines() == [f"{folder}/" for folder in folders]


def test_installed(tmp_path):
    """Without a clone around it, the command writes under the current folder."""
    site, work = tmp_path / "site", tmp_path / "work"
    shutil.copytree(ROOT / "prototxt_gen", site / "prototxt_gen", ignore=shutil.ignore_patterns("__pycache__"))
    work.mkdir()
    paths = [str(site)] + [
        path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path) != ROOT
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    program = "import sys; from prototxt_gen.make_net import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "--arch", "resnet", "--width", "16"]
    subprocess.run(command, cwd=work, check=True, capture_output=True, env=environment)
    folder = work / "experiments" / "resnet_c16_d20_cifar100"
    assert {path.name for path in folder.iterdir()} == FILES
    assert 'net: "experiments/resnet_c16_d20_cifar100/train_val.prototxt"' in (folder / "solver.prototxt").read_text()
    wrong = subprocess.run(
        [*command, "--depth", "4"], cwd=work, check=False, capture_output=True, text=True, env=environment
    )
    assert wrong.returncode == 2 and wrong.stderr.startswith("make_net: error: resnet: depth 4 is not 3B + 2")


@pytest.mark.parametrize("arguments,message", [
    ("--arch igcv3", "unknown architecture 'igcv3': did you mean igcv2 or igcv1"),
    ("--arch igcv2 --width 61", "nearest widths that work: 60, 62"),
    ("--arch deep-roots --width 50", "width 50 is not divisible by the 16 branches of the first stage; nearest widths"),
    ("--arch igcv1 --width 47", "nearest widths that work: 46, 48"),
    ("--arch igcv2star --width 100", "8 channels per branch do not divide 100 channels"),
    ("--arch igcv2 --depth 21", "depth 21 is not 3B + 2 with B blocks in each of three stages: nearest are 20 or 23"),
    ("--arch igcv2 --depth 3", "nearest are 5"),
    ("--arch igcv2 --channels-per-branch 7", "7 channels per branch do not divide 64 channels: nearest"),
    ("--arch igcv2 --channels-per-branch 8,8", "give one, or one for each of 3 stages"),
    ("--arch igcv2 --channels-per-branch 8x8x8", "its 2 1x1 convolutions"),
    ("--arch igcv2 --channels-per-branch 8,x", "is not K, K,K,K"),
    ("--arch igcv2 --layers 1", "L is 2 or more"),
    ("--arch xception --layers 3", "xception has no --layers: architectures that have it are igcv2"),
    ("--arch igcv2 --dataset cifar", "unknown data set 'cifar': did you mean cifar10 or cifar100"),
    ("--arch igcv2 --dataset .", "a folder made by data_prep has it"),
    ("--arch igcv2 --batch-size 0", "1 to the 50000 training images"),
    ("--arch igcv2 --epochs 0", "more than 0"),
    ("--arch igcv2 --epochs inf", "--epochs inf: 2748778 are the most"),  # times 781.25 iterations: below 2^31 - 100
    ("--arch igcv2 --epochs 1e300", "--epochs 1e+300: 2748778 are the most"),
    ("--arch igcv2 --epochs 2748779", "2748778 are the most"),
    ("--arch igcv2 --width 0", "--width 0: a width is at least 1"),
    ("--arch igcv2 --first-width 0", "--first-width 0: a width is at least 1"),
    ("--arch xception --first-width -4", "--first-width -4: a width is at least 1"),
    ("--arch igcv2 --test-batch-size 64", "nearest that do are 50 and 80"),
    ("--arch igcv2 --test-batch-size 4000", "nearest that do are 2500 and 5000"),
    ("--arch xception --layers-from first-stage", "xception has no --layers-from: architectures that have it are"),
    ("--arch igcv2 --seed -1", "0 to 2147483647"),
    ("--arch igcv2 --width x", "invalid int value: 'x'"),
    ("--arch igcv2 --engine gpu", "invalid choice: 'gpu'"),
    ("", "required: --arch"),
    ("--arch igcv2 --out /proc/none", "cannot write /proc/none"),
])  # fmt: skip
def test_wrong_input_is_one_line(run_tool, tmp_path, arguments, message):
    done = run_tool("make_net", *arguments.split())
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert not done.stdout and not list(tmp_path.iterdir())


def test_suggested_widths_work():
    for arch in ARCHITECTURES:
        for width in (37, 61, 97, 101):
            try:
                build(Experiment(arch, Options(width=width, depth=8)))
            except Invalid as error:
                for near in str(error).rpartition(": ")[2].split(", "):
                    build(Experiment(arch, Options(width=int(near), depth=8)))


def test_a_new_architecture_is_one_file(tmp_path):
    shutil.copytree(ROOT / "prototxt_gen", tmp_path / "prototxt_gen", ignore=shutil.ignore_patterns("__pycache__"))
    source = (ROOT / "prototxt_gen" / "architectures" / "xception.py").read_text()
    (tmp_path / "prototxt_gen" / "architectures" / "brandnew.py").write_text(source.replace("Xception (", "New ("))
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path) != ROOT]
    command = [sys.executable, tmp_path / "prototxt_gen" / "make_net.py", "--arch", "brandnew", "--summary-only"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "New (C64), depth 20" in done.stdout


def test_very_wide_networks_take_no_longer(run_tool):
    """Stage 3 has 20,000 channels, whose paths would take gigabytes."""
    done = run_tool("make_net", "--arch", "igcv2", "--width", 5000, "--depth", 8, "--summary-only")
    assert done.returncode == 0 and "not examined: over 4,096 channels" in done.stdout


@pytest.mark.parametrize("engine", ["fused", "stock"])
def test_training_settings_in_the_net(engine):
    """No bias in convolutions; eps 2e-5; moving average 0.9 with skips, 0.99 without; weight decay everywhere."""
    for arch, average in (("igcv2", 0.9), ("igcv2-II", 0.99)):
        for layer in net_of(arch, Options(width=64, depth=8), engine=engine).layer:
            assert not layer.param
            if layer.type == "Convolution":
                assert not layer.convolution_param.bias_term and layer.convolution_param.weight_filler.type == "msra"
            for stage in layer.fused_group_convolution_param.stage:
                assert not stage.bias_term and stage.weight_filler.type == "msra"
            if layer.type in ("BatchNorm", "FusedBatchNorm"):
                param = layer.batch_norm_param if engine == "stock" else layer.fused_batch_norm_param
                assert param.moving_average_fraction == pytest.approx(average) and param.eps == pytest.approx(2e-5)


def test_skips_span_two_blocks():
    """The ReLU of the second block comes after the addition; a projection only where a later stage begins."""

    def sums(arch, **options):
        net = net_of(arch, Options(depth=14, **options))
        return [
            (layer.name, layer.bottom[1])
            for layer in net.layer
            if layer.type == "FusedBatchNorm" and len(layer.bottom) > 1
        ]

    stage1 = [("stage1_block2_bn", "conv1_skip"), ("stage1_block4_bn", "stage1_block2_bn_skip")]
    later = [
        (f"stage{s}_block{b}_bn", f"stage{s}_shortcut" if b == 2 else f"stage{s}_block2_bn_skip")
        for s in (2, 3)
        for b in (2, 4)
    ]
    assert sums("igcv2") == stage1 + later
    assert (
        sums("xception", width=58)
        == sums("igcv2star", width=128)
        == [("stage1_block4_bn", "stage1_block2_skip")] + later
    )
    assert sums("igcv2", downsampling=False) == sums("igcv2-II") == []


def test_skips_start_at_the_convolution_behind_the_batch_norm():
    """It hands its input on and takes the ReLU's gradient, and the batch norm, with a residual, is not in place."""
    layers = {layer.name: layer for layer in net_of("igcv2", Options(depth=14)).layer}
    starts = {"stage1_block1": "conv1", "stage1_block3": "stage1_block2_bn", "stage2_block1": "stage1_block4_bn",
              "stage2_block3": "stage2_block2_bn", "stage3_block1": "stage2_block4_bn",
              "stage3_block3": "stage3_block2_bn"}  # fmt: skip
    for name, layer in layers.items():
        if layer.type == "FusedGroupConvolution":
            tops = [name, f"{starts[name]}_skip"] if name in starts else [name]
            assert (list(layer.top), layer.fused_group_convolution_param.bottom_relu) == (tops, name in starts)
            assert layer.bottom[0] == starts.get(name, layer.bottom[0])
        elif layer.type == "FusedBatchNorm":
            own = name in starts.values()
            assert list(layer.top) == [name if own else layer.bottom[0]]
            assert layer.fused_batch_norm_param.relu_gradient == (not own and name != "conv1_bn")
    assert layers["stage2_shortcut"].bottom == ["stage1_block4_bn_skip"]
    assert layers["pool"].bottom == ["stage3_block4"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("depth", [8, 11])
def test_caffe_need_not_split_a_blob(arch, depth):
    """Every top has one reader; what takes no gradient of its ReLU is read by what does."""
    read, spared = {"label": 0}, set()
    for layer in net_of(arch, Options(width=70 if arch == "xception" else 64, depth=depth)).layer:
        if layer.type in ("AugmentedData", "Accuracy", "SoftmaxWithLoss"):
            read.update(dict.fromkeys(layer.top, 0))
            continue
        for bottom in layer.bottom:
            assert read[bottom] == 0, bottom
            read[bottom] = 1
        assert layer.fused_group_convolution_param.bottom_relu == (layer.bottom[0] in spared)
        spared.discard(layer.bottom[0])
        read.update(dict.fromkeys(layer.top, 0))
        if not layer.fused_batch_norm_param.relu_gradient:
            spared.add(layer.top[0])
    assert not spared


SHORTCUTS = {"xception": [1, 1], "igcv1": [32, 32], "igcv2": [32, 64], "igcv2star": [32, 64], "resnet": [1, 1]}


@pytest.mark.parametrize("arch,groups", SHORTCUTS.items())
def test_shortcuts(arch, groups):
    net = net_of(arch, Options(width=64, first_width=64, depth=8), engine="stock")
    shortcuts = [layer.convolution_param for layer in net.layer if layer.name.endswith("_shortcut")]
    assert [(p.group, p.num_output, list(p.stride), list(p.kernel_size)) for p in shortcuts] == [
        (groups[0], 128, [2], [1]), (groups[1], 256, [2], [1])]  # fmt: skip


def test_layers_and_channels_per_branch():
    def branches(**options):
        plan = build(Experiment("igcv2", Options(**options))).summary["blocks"]
        return [
            list(row["branches"])
            for row in plan
            if not row["first"].endswith("block1") or row["first"].startswith("stage1")
        ]

    assert branches(width=64) == [[1, 8, 8], [1, 16, 16], [1, 32, 32]]
    assert branches(width=80) == [[1, 10, 10], [1, 16, 16], [1, 20, 20]]
    assert branches(width=64, channels_per_branch=((16,),)) == [[1, 16, 16]] * 3
    assert branches(width=64, layers=4) == [[1, 4, 4, 4], [1, 8, 8, 8], [1, 8, 8, 8]]
    assert branches(width=60, channels_per_branch=((6, 10), (12, 10), (16, 15)))[0] == [1, 6, 10]


def test_the_paper_row_is_shown_only_for_the_papers_network():
    for table, row in table_rows("table2", "table3", "table4", "table5", "table6"):
        assert table in [found["table"] for found in build(experiment(table, row)).summary["paper"]]
    changes = {"layers": 4, "channels_per_branch": ((16,),), "depth": 14, "first_width": 32, "downsampling": False}
    for option, value in changes.items():
        assert not build(Experiment("igcv2", Options(width=64, **{option: value}))).summary["paper"]
