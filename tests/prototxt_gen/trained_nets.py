"""Nets with weights, and what Caffe computes with them, for tests."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from prototxt_gen.complexity import count_net
from prototxt_gen.files import write_files
from prototxt_gen.proto import pb
from prototxt_gen.weights import net_files


def parse(text: str) -> "pb.NetParameter":
    return text_format.Parse(text, pb.NetParameter())


def trained(net):
    """The net with blobs as after training: weights that keep values near 1, statistics and scales all different."""
    rng, result = np.random.default_rng(0), pb.NetParameter()
    result.CopyFrom(net)
    shapes = {layer.name: layer.blobs for layer in count_net(net).layers}
    for layer in result.layer:
        if layer.type == "AugmentedData":
            continue
        arrays = [rng.standard_normal(shape) * (2 / np.prod(shape[1:] or 50)) ** 0.5 for shape in shapes[layer.name]]
        if layer.type.endswith("BatchNorm"):
            arrays[1], arrays[2] = rng.uniform(3, 9, arrays[1].shape), np.array([3.0])
        if layer.type in ("Scale", "FusedBatchNorm"):
            arrays[-2] = rng.uniform(0.5, 1.5, arrays[-2].shape)
        for array in arrays:
            layer.blobs.add(shape=pb.BlobShape(dim=array.shape), data=array.astype(np.float32).ravel().tolist())
    return result


def caffe_outputs(folder: Path, images: np.ndarray, nets: dict) -> dict:
    """By the nets' keys: blobs fc and prob for these images, N x C x H x W. The nets' files go into `folder`."""
    np.save(folder / "images.npy", images)
    folders = {key: folder / str(number) for number, key in enumerate(nets)}
    for key, path in folders.items():
        path.mkdir()
        write_files(net_files(nets[key], path / "net.prototxt", path / "net.caffemodel"))
    command = [sys.executable, Path(__file__).with_name("net_outputs.py"), folder / "images.npy", folder / "out.npz"]
    quiet = {**os.environ, "GLOG_minloglevel": "2"}
    done = subprocess.run([*command, *folders.values()], env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(folder / "out.npz")
    return {key: (found[str(path)], found[f"{path}/prob"]) for key, path in folders.items()}
