"""Times a training step of a generated net in PyTorch: the prototxt's layers between data and loss as torch modules.

Prints one JSON line. To be started with glibc told to keep freed memory (bench_net.py does), which PyTorch gains from.
"""

import argparse
import json
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import nn
from torch.nn import functional

from benchmarks.bench_report import MODES
from prototxt_gen.proto import read_net


class Permutation(nn.Module):
    """top channel i = bottom channel perm[i]; an interleave is PyTorch's channel shuffle."""

    def __init__(self, param):
        super().__init__()
        if param.inverse:
            raise SystemExit("error: inverse permutations are not translated to PyTorch")
        self.groups = param.interleave or 1
        self.register_buffer("index", torch.tensor(param.index) if param.index else None)

    def forward(self, x):
        if self.index is not None:
            return x.index_select(1, self.index)
        return functional.channel_shuffle(x, self.groups) if self.groups > 1 else x


class BatchNorm(nn.BatchNorm2d):
    def __init__(self, channels: int, param):
        super().__init__(channels, eps=param.eps, momentum=1 - param.moving_average_fraction)
        self.relu = param.relu

    def forward(self, x, residual=None):
        y = super().forward(x)
        if residual is not None:
            y += residual
        return functional.relu_(y) if self.relu else y


class Chain(nn.Module):
    """FusedGroupConvolution: the stages with their permutations, the residual, the ReLU."""

    def __init__(self, param, width: int):
        super().__init__()
        parts = []
        for s in param.stage:
            shape = (s.kernel_size, s.stride, s.pad, s.dilation)
            convolution = nn.Conv2d(width, s.num_output, *shape, groups=s.group, bias=s.bias_term)
            parts += [Permutation(s.permutation), convolution]
            width = s.num_output
        self.parts = nn.Sequential(*parts, Permutation(param.output_permutation))
        self.relu, self.width = param.relu, width

    def forward(self, x, residual=None):
        y = self.parts(x)
        if residual is not None:
            y += residual
        return functional.relu_(y) if self.relu else y


class Net(nn.Module):
    """The layers of a train_val.prototxt that TRAIN runs after the data layer, or those of a deploy.prototxt behind its
    input; forward gives the loss or the probabilities."""

    def __init__(self, net, channels: int):
        super().__init__()
        widths = {"data": channels}
        self.steps = []  # (module's name, bottoms, tops)
        for layer in net.layer:
            if layer.type in ("AugmentedData", "Input", "Accuracy"):
                continue
            module, width = translate(layer, widths[layer.bottom[0]])
            widths.update(zip(layer.top, (width, widths[layer.bottom[0]]), strict=False))
            self.add_module(layer.name, module)
            self.steps.append((layer.name, list(layer.bottom), list(layer.top)))

    def forward(self, data, label=None):
        blobs = {"data": data, "label": label}
        for name, bottoms, (top, *skip) in self.steps:
            blobs.update(dict.fromkeys(skip, blobs[bottoms[0]]))
            blobs[top] = getattr(self, name)(*(blobs[bottom] for bottom in bottoms))
        return blobs[top]


def translate(layer, width: int) -> tuple[nn.Module, int]:
    """A module for the layer, and its output channels."""
    if layer.type == "Convolution":
        p = layer.convolution_param
        pad, stride = (p.pad or [0])[0], (p.stride or [1])[0]
        convolution = nn.Conv2d(width, p.num_output, p.kernel_size[0], stride, pad, groups=p.group, bias=p.bias_term)
        return convolution, p.num_output
    if layer.type == "FusedGroupConvolution":
        chain = Chain(layer.fused_group_convolution_param, width)
        return chain, chain.width
    if layer.type == "FusedBatchNorm":
        return BatchNorm(width, layer.fused_batch_norm_param), width
    if layer.type == "Pooling" and layer.pooling_param.global_pooling:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), width
    if layer.type == "InnerProduct":
        outputs = layer.inner_product_param.num_output
        return nn.Linear(width, outputs), outputs
    if layer.type == "SoftmaxWithLoss":
        return nn.CrossEntropyLoss(), 1
    if layer.type == "Softmax":
        return nn.Softmax(dim=1), width
    raise SystemExit(f"error: layer '{layer.name}' of type {layer.type} is not translated to PyTorch")


def channel_order(mode: str) -> torch.memory_format:
    return torch.channels_last if "channels_last" in mode else torch.contiguous_format


def time_steps(args) -> list[float]:
    """Milliseconds of each step: forward, backward, update. The batch is always the same: no data layer to wait for."""
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    model = Net(read_net(args.net), args.channels)
    data = torch.randn(args.batch_size, args.channels, args.size, args.size)
    label = torch.randint(0, 10, (args.batch_size,))
    order = channel_order(args.mode)
    model, data = model.to(memory_format=order), data.to(memory_format=order)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=True)
    run = torch.compile(model) if "compiled" in args.mode else model
    times = []
    for _ in range(args.warm_up + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        run(data, label).backward()
        optimizer.step()
        times.append((time.perf_counter() - start) * 1000)
    return times[args.warm_up :]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", type=Path, help="train_val.prototxt in fused layers")
    parser.add_argument("--mode", choices=MODES, default="eager")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    print(json.dumps({"mode": args.mode, "ms": time_steps(args), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
