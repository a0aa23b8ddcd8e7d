"""The memory traffic of a training step, against which its time is held: the bytes it moves, and a copy's speed."""

import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from prototxt_gen.complexity import count_net, included
from prototxt_gen.proto import read_net

LOSSES = {"SoftmaxWithLoss", "Accuracy"}  # a few numbers per image


def step_bytes(net: Path) -> int:
    """Bytes that the layers of a prototxt read and write in one step, if each goes over every blob once.

    Forward a layer reads its bottoms and writes its tops; backward it reads the tops' gradients and its first bottom,
    and writes the bottoms' gradients; where it takes the gradient of a ReLU behind a sum, it reads the top too. Not
    counted are parameters, labels and losses; what an implementation reads twice or finds in a cache makes no
    difference.
    """
    net = read_net(net)
    layers = [layer for layer in net.layer if included(layer, "TRAIN")]
    values, without_gradient, moved = {}, set(), 0
    for layer, count in zip(layers, count_net(net, "TRAIN").layers, strict=True):
        values.update((top, math.prod(shape)) for top, shape in zip(layer.top, count.tops, strict=False))
        if not layer.bottom:
            without_gradient.update(layer.top)
        elif layer.type not in LOSSES:
            blobs = [*_forward(layer), *_backward(layer, without_gradient)]
            moved += sum(values[blob] for blob in blobs)
    return moved * np.dtype(np.float32).itemsize


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


def copy_bandwidth(threads: int, megabytes: int = 256, turns: int = 9) -> float:
    """GB/s, bytes read and bytes written, of the best of some copies of `megabytes` on all threads."""
    copy = Copy(megabytes * 2**20 // np.dtype(np.float32).itemsize, threads)
    best = math.inf
    for _ in range(turns):
        begun = time.perf_counter()
        copy.forward()
        best = min(best, time.perf_counter() - begun)
    return 2 * copy.tensors[0].nbytes / best / 1e9
