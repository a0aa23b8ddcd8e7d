"""What a training step is held against: its bytes at a copy's speed, its multiply-adds at a matrix product's."""

import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.complexity import count_net, included
from prototxt_gen.proto import read_net

LOSSES = {"SoftmaxWithLoss", "Accuracy"}  # a few numbers per image


@dataclass(frozen=True)
class Pass:
    """A layer's forward or backward pass over a batch."""

    bytes: int
    multiply_adds: int


@dataclass(frozen=True)
class Speeds:
    """Of a machine: a copy's GB/s, bytes read and bytes written, and a matrix product's GFLOP/s."""

    copy: float
    product: float

    def limit_ms(self, passes: list[Pass]) -> float:
        """Milliseconds, if each pass takes the longer of its bytes at the copy's and its multiply-adds at the product's
        speed."""
        return sum(max(1e-6 * one.bytes / self.copy, 2e-6 * one.multiply_adds / self.product) for one in passes)


def step_passes(net: Path) -> list[Pass]:
    """Forward and backward of the layers of a prototxt, if each goes over every blob once.

    Forward a layer reads its bottoms and writes its tops; backward it reads the tops' gradients and its first bottom,
    and writes the bottoms' gradients; where it takes the gradient of a ReLU behind a sum, it reads the top too. Not
    counted are parameters, labels and losses; what an implementation reads twice or finds in a cache makes no
    difference. Multiply-adds are those of convolutions as they are defined, forward and for each gradient that is
    wanted: not that backward computes values again, nor that Winograd's algorithm takes fewer.
    """
    net = read_net(net)
    layers = [layer for layer in net.layer if included(layer, "TRAIN")]
    values, without_gradient, passes = {}, set(), []
    for layer, count in zip(layers, count_net(net, "TRAIN").layers, strict=True):
        values.update((top, math.prod(shape)) for top, shape in zip(layer.top, count.tops, strict=False))
        if not layer.bottom:
            without_gradient.update(layer.top)
        elif layer.type not in LOSSES:
            multiply_adds = count.tops[0][0] * count.convolution_multiply_adds
            gradients = 1 if layer.bottom[0] in without_gradient else 2
            for blobs, times in (_forward(layer), 1), (_backward(layer, without_gradient), gradients):
                moved = sum(values[blob] for blob in blobs) * np.dtype(np.float32).itemsize
                passes.append(Pass(moved, times * multiply_adds))
    return passes


def _forward(layer) -> list[str]:
    """Blobs whose values a layer reads or writes, as often as it does."""
    shared = layer.type == "FusedGroupConvolution"  # its second top is its bottom's memory
    return [*layer.bottom, *(layer.top[:1] if shared else layer.top)]


def _backward(layer, without_gradient: set[str]) -> list[str]:
    """Blobs whose values or gradients a layer reads or writes, as often as it does."""
    read, written = [layer.bottom[0], *layer.top], list(layer.bottom)
    param = layer.fused_batch_norm_param
    if layer.type == "FusedBatchNorm" and len(layer.bottom) > 1:
        if param.relu and param.relu_gradient:
            read.append(layer.top[0])
        elif not param.relu_gradient:
            written.pop()  # the residual's gradient is the top's memory
    return read + [blob for blob in written if blob not in without_gradient]


class Copy:
    """Of `values` floats, on all threads; by PyTorch where that is loaded. Backward copies between two other tensors,
    as a layer's does between the gradients: else it would find its tensors in the caches."""

    def __init__(self, values: int, threads: int):
        # Not zeros: zeros never written would all be one page, in a cache.
        self.tensors = [np.ones(values, np.float32) for _ in range(4)]
        self.torch = None
        if "torch" in sys.modules:
            import torch

            self.torch = [torch.from_numpy(tensor) for tensor in self.tensors]
        self.pool = ThreadPoolExecutor(threads)
        self.parts = [slice(*ends) for ends in pairwise(np.linspace(0, values, threads + 1, dtype=int))]

    def forward(self):
        self._copy(0, 1)

    def backward(self):
        self._copy(2, 3)

    def _copy(self, source: int, target: int):
        if self.torch:
            self.torch[target].copy_(self.torch[source])
        else:
            read, written = self.tensors[source], self.tensors[target]
            list(self.pool.map(lambda part: np.copyto(written[part], read[part]), self.parts))


class Product:
    """A matrix product, size x size, whose operands stay in the caches; `gflop`: its billions of operations."""

    def __init__(self, size: int = 1024):
        self.operands = np.ones((2, size, size), np.float32)
        self.result = np.empty((size, size), np.float32)
        self.gflop = 2e-9 * size**3

    def forward(self):
        np.matmul(*self.operands, out=self.result)

    backward = forward


def best_seconds(block, turns: int) -> float:
    """Of the fastest of some forward passes of a Copy or a Product."""
    times = []
    for _ in range(turns):
        begun = time.perf_counter()
        block.forward()
        times.append(time.perf_counter() - begun)
    return min(times)


def measure_speeds(threads: int, megabytes: int = 256) -> Speeds:
    """With copies of `megabytes`. By this file as a program: its memory would count in the peaks of those that are
    started later, and NumPy's OpenBLAS reads the number of its threads when it is loaded."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, str(threads), str(megabytes)]
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, check=True)
    return Speeds(**json.loads(done.stdout))


def main(threads: int, megabytes: int):
    copy, product = Copy(megabytes * 2**20 // np.dtype(np.float32).itemsize, threads), Product()
    gigabytes = 2e-9 * copy.tensors[0].nbytes
    speeds = Speeds(copy=gigabytes / best_seconds(copy, 9), product=product.gflop / best_seconds(product, 50))
    print(json.dumps(asdict(speeds)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
