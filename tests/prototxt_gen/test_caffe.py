"""Every network of the tables in the built Caffe: loads, runs forward and backward, has as many values as counted."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from nets import experiment, label, table_rows

from prototxt_gen.architecture import Options
from prototxt_gen.complexity import count_net
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.proto import pb, read_net

BATCH = 1
TABLES = ("table2", "table3", "table4", "table5", "table6")


def make_dataset(folder: Path, size: int, classes: int) -> Path:
    """A folder as data_prep makes them, of noise."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        with (
            lmdb.open(str(folder / f"{part}_lmdb"), map_size=1 << 24) as environment,
            environment.begin(write=True) as records,
        ):
            for i in range(8):
                pixels = rng.integers(0, 256, (3, size, size), np.uint8)
                datum = pb.Datum(channels=3, height=size, width=size, data=pixels.tobytes(), label=i % classes)
                records.put(f"{i:08d}".encode(), datum.SerializeToString())
    facts = {"name": folder.name, "num_classes": classes, "train": {"records": 8}, "test": {"records": 8},
             "image": {"channels": 3, "height": size, "width": size}, "channel_order": "BGR",
             "mean": [127.5] * 3, "std": [73.9] * 3}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def small_cifar(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("small"), 32, 100)


@pytest.fixture(scope="module")
def small_tiny_imagenet(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("tiny"), 64, 200)


def run_nets(groups):
    """[[(prototxt, phase), ...], ...] -> what run_nets.py says about each net, in order."""
    command = [sys.executable, Path(__file__).with_name("run_nets.py")]
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    done = subprocess.run(command, input=json.dumps(groups), check=False, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def write(run: Experiment) -> Path:
    build(run).write()
    return run.folder


NETS = (("train_val.prototxt", "TRAIN"), ("train_val.prototxt", "TEST"), ("deploy.prototxt", "TEST"))


def check_in_caffe(folders: list[Path]):
    groups = [[(str(folder / name), phase) for name, phase in NETS] for folder in folders]
    nets = [net for group in groups for net in group]
    for (path, phase), result in zip(nets, run_nets(groups), strict=True):
        counts = count_net(read_net(Path(path)), phase)
        assert result["values"] == counts.total("values"), path
        assert result["finite"], (path, phase)
        if "train_val" in path:  # the backward pass reaches every layer
            assert result["moved"] == sum(layer.learned > 0 for layer in counts.layers), (path, phase)


@pytest.mark.parametrize("engine", ["fused", "stock"])
@pytest.mark.parametrize("table", TABLES)
def test_networks_of_the_tables(table, engine, small_cifar, tmp_path):
    common = {"engine": engine, "dataset": str(small_cifar), "batch_size": BATCH, "test_batch_size": BATCH, "epochs": 4}
    runs = [experiment(table, row, out=tmp_path / label(row), **common) for _, row in table_rows(table)]
    check_in_caffe([write(run) for run in runs])


@pytest.mark.parametrize("engine", ["fused", "stock"])
def test_other_networks(engine, small_tiny_imagenet, tmp_path):
    """Architectures without a row, the other reading of L*, odd B, and Tiny ImageNet's stride."""
    options = {
        "deep-roots": Options(width=32, depth=8), "resnet": Options(width=16, depth=11),
        "igcv2star": Options(width=112, depth=8, layers_from="first-stage"),
        "igcv2": Options(width=60, depth=5, channels_per_branch=((6, 10), (12, 10), (15, 16))),
        "igcv2-I": Options(width=64, depth=8, downsampling=True), "xception": Options(width=35, depth=8),
    }  # fmt: skip
    runs = [Experiment(arch, option, str(small_tiny_imagenet), BATCH, BATCH, 4, engine=engine, out=tmp_path / arch)
            for arch, option in options.items()]  # fmt: skip
    check_in_caffe([write(run) for run in runs])


@pytest.mark.parametrize("engine", ["fused", "stock"])
def test_weights_start_as_published(engine, small_cifar, tmp_path):
    """Gaussian of variance 2 / fan_in of one group; classifier uniform in +- sqrt(1 / fan_in)."""
    folder = write(
        Experiment("igcv2", Options(width=80, depth=8), str(small_cifar), BATCH, BATCH, 4, engine=engine, out=tmp_path)
    )
    (result,) = run_nets([[(str(folder / "train_val.prototxt"), "TRAIN")]])
    counts = count_net(read_net(folder / "train_val.prototxt"), "TRAIN")
    checked = 0
    for layer in counts.layers:
        for blob, std in zip(layer.blobs, result["stds"].get(layer.name, ()), strict=True):
            if layer.convolution_weights:
                wanted = math.sqrt(2 / math.prod(blob[1:]))
            elif layer.type == "InnerProduct" and len(blob) == 2:
                wanted = math.sqrt(1 / blob[1]) / math.sqrt(3)
            else:
                continue
            assert std == pytest.approx(wanted, rel=5 / math.sqrt(2 * math.prod(blob)))
            checked += 1
    assert checked == 1 + 6 * 3 + 2 + 1
