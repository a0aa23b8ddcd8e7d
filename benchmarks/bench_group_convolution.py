"""Every block of the paper's networks: FusedGroupConvolution beside stock Caffe's layers, PyTorch and a plain copy.

All in one process and in turns, forward and backward (to the input and to all weights) of one block at a time; times
are the fastest of all turns, so that what else the machine does counts least. The results of ours and stock Caffe's are
compared first. Stock means Convolution, with our ChannelPermutation between. Copy is one read and one write of a tensor
as large as the mean of input and output. A large matrix product (numpy's BLAS) measures what the multiply-add units can
do, and with the copy gives a limit for each block; stores that need not read a line first can go below the copy's.
PyTorch (optional) is told to keep freed memory, which makes it faster, and is timed in all its modes; the table names
each block's best. Then ChannelPermutation beside the copy. Prints and saves both tables, after each block; blocks that
the same code was timed for on the same machine before stay in them.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.bench_net import KEEP_MEMORY
from benchmarks.bench_report import ROOT, origin, this_command
from benchmarks.group_convolution_nets import permutation_net, read_shapes
from benchmarks.group_convolution_report import PermutationRow, Row, markdown, permutation_markdown, write_results
from benchmarks.limits import Copy, Pass, Product, Speeds
from prototxt_gen.layer_shapes import EFFECTS
from prototxt_gen.proto import to_text
from prototxt_gen.to_stock import to_stock

NETS = "igcv2-c64|igcv2-c80|igcv2star-c216|igcv1-c48|xception-c35"
TORCH_MODES = ("eager", "channels_last", "compiled")
# N, C, H, W and branches of the interleave: maps of IGC-V2 C64, of Xception C35 and of IGC-V2* C216
PERMUTATIONS = (
    (64, 64, 32, 32, 8),
    (64, 128, 16, 16, 16),
    (64, 256, 8, 8, 32),
    (64, 140, 8, 8, 10),
    (64, 216, 32, 32, 27),
)


class CaffeBlock:
    def __init__(self, net, folder: Path):
        import caffe

        path = folder / "net.prototxt"
        path.write_text(to_text(net))
        self.net = caffe.Net(str(path), caffe.TRAIN)
        self.last = len(self.net.layers) - 1
        self.top = self.net.blobs[self.net.outputs[0]]

    def load(self, data, top_diff, weights=None):
        self.net.blobs["data"].data[...] = data
        self.top.diff[...] = top_diff
        for blob, weight in zip(self.weights(), weights or [], strict=False):
            blob.data[...] = weight.data

    def weights(self):
        return [blob for blobs in self.net.params.values() for blob in blobs]

    def forward(self):
        self.net._forward(1, self.last)

    def backward(self):
        self.net._backward(self.last, 1)


class TorchBlock:
    def __init__(self, net, data, top_diff, mode: str):
        import torch

        from benchmarks.torch_net import Chain

        shape = torch.channels_last if mode == "channels_last" else torch.contiguous_format
        param = net.layer[1].fused_group_convolution_param
        self.module = Chain(param, data.shape[1]).to(memory_format=shape)
        torch._dynamo.reset()  # else, after eight blocks, it takes the next for too many variants of one and runs eager
        self.run = torch.compile(self.module) if mode == "compiled" else self.module
        self.x = torch.tensor(data).contiguous(memory_format=shape).requires_grad_()
        self.top_diff = torch.tensor(top_diff).contiguous(memory_format=shape)

    def forward(self):
        self.y = self.run(self.x)

    def backward(self):
        self.x.grad = None
        self.module.zero_grad(set_to_none=True)
        self.y.backward(self.top_diff)


def check(ours: CaffeBlock, stock: CaffeBlock, name: str):
    """Ends the run if the two do not agree."""
    for block in (ours, stock):
        block.forward()
        block.backward()
    pairs = [("top", ours.top.data, stock.top.data)]
    pairs += [("bottom gradient", ours.net.blobs["data"].diff, stock.net.blobs["data"].diff)]
    weights = zip(ours.weights(), stock.weights(), strict=True)
    pairs += [(f"gradient of blob {i}", a.diff, b.diff) for i, (a, b) in enumerate(weights)]
    for what, a, b in pairs:
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error < 1e-4:
            raise SystemExit(f"error: {name}: {what} differs from stock Caffe's by {error:.1e}")


def time_in_turns(blocks: dict, turns: int, seconds: float) -> dict[str, list[float]]:
    """Fastest [forward, backward] ms of each; every turn is `seconds` long for each."""
    times = {title: ([], []) for title in blocks}
    for _ in range(turns):
        for title, block in blocks.items():
            block.forward()
            block.backward()  # warm up
            end = time.perf_counter() + seconds
            while True:
                start = time.perf_counter()
                block.forward()
                middle = time.perf_counter()
                block.backward()
                stop = time.perf_counter()
                times[title][0].append(1000 * (middle - start))
                times[title][1].append(1000 * (stop - middle))
                if stop > end:
                    break
    return {title: [min(direction) for direction in both] for title, both in times.items()}


def bench(name: str, net, args, modes) -> Row:
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        ours, stock = CaffeBlock(net, Path(folder)), CaffeBlock(to_stock(net), Path(folder))
    data = random.standard_normal(ours.net.blobs["data"].data.shape, np.float32)
    top_diff = random.standard_normal(ours.top.data.shape, np.float32)
    ours.load(data, top_diff)
    stock.load(data, top_diff, ours.weights())
    check(ours, stock, name)
    blocks = {"ours": ours, "stock": stock, "copy": Copy((data.size + top_diff.size) // 2, args.threads)}
    blocks["product"] = product = Product()
    blocks |= {f"torch {mode}": TorchBlock(net, data, top_diff, mode) for mode in modes}
    times = time_in_turns(blocks, args.turns, args.seconds)
    torch = {mode: times[f"torch {mode}"] for mode in modes}
    multiply_adds = data.shape[0] * EFFECTS["FusedGroupConvolution"](net.layer[1], [data.shape]).multiply_adds
    total, copy, peak = sum(times["ours"]), times["copy"][0], product.gflop / min(times["product"]) * 1e3
    copied = data.nbytes + top_diff.nbytes
    passes = [Pass(copied, multiply_adds), Pass(copied + data.nbytes, 2 * multiply_adds)]
    return Row(
        name=name,
        ours=times["ours"],
        stock=times["stock"],
        torch=torch,
        copy=copy,
        gflops=6e-6 * multiply_adds / total,
        peak=peak,
        limit=Speeds(copy=1e-6 * copied / copy, product=peak).limit_ms(passes),
        gbytes=1e-6 * (3 * data.nbytes + 2 * top_diff.nbytes) / total,
        forward_copies=times["ours"][0] / copy,
        times_stock=sum(times["stock"]) / total,
        times_torch=min(map(sum, torch.values())) / total if torch else None,
        command=this_command(),
    )


def bench_permutation(shape: tuple[int, ...], branches: int, args) -> PermutationRow:
    with tempfile.TemporaryDirectory() as folder:
        ours = CaffeBlock(permutation_net(shape, branches), Path(folder))
    data = np.random.default_rng(1).standard_normal(shape, np.float32)
    ours.load(data, data)
    times = time_in_turns({"ours": ours, "copy": Copy(data.size, args.threads)}, args.turns, args.seconds)
    copy = times["copy"][0]
    name = f"{'x'.join(map(str, shape))}, {branches} branches"
    return PermutationRow(name, times["ours"], copy, [copy / ms for ms in times["ours"]], this_command())


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench_group_convolution", description=__doc__)
    parser.add_argument("blocks", nargs="?", default=NETS, help="regular expression that a block's name begins with")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.2, help="of each contestant's turn (%(default)s)")
    parser.add_argument("--torch-modes", nargs="*", default=TORCH_MODES, choices=TORCH_MODES, help="(all)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="(%(default)s)")
    return parser


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    shapes = read_shapes(ROOT / "benchmarks/group_convolution_shapes.txt")
    blocks = {name: net for name, net in shapes.items() if re.match(args.blocks, name)}
    if not blocks:
        first = ", ".join(list(shapes)[:3])
        parser.error(f"no block begins with '{args.blocks}': benchmarks/group_convolution_shapes.txt has {first}, ...")
    settings = {
        "OMP_NUM_THREADS": str(args.threads),
        "OPENBLAS_NUM_THREADS": str(args.threads),
        "GLOG_minloglevel": "2",
    }
    settings |= KEEP_MEMORY
    if any(os.environ.get(name) != value for name, value in settings.items()):  # they are read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})
    modes = args.torch_modes
    try:
        import torch

        torch.set_num_threads(args.threads)
    except ImportError:
        print("PyTorch is not installed: its columns stay empty (pip install torch)")
        modes = []
    rows, of = [], origin(args.threads)  # of the code as it starts
    for name, net in blocks.items():
        rows.append(bench(name, net, args, modes))
        print(markdown(rows[-1:]).splitlines()[-1] if len(rows) > 1 else markdown(rows).rstrip(), flush=True)
        write_results(rows, [], of, args.out)  # each time: what ends the run later loses nothing
    permutations = [bench_permutation(tuple(shape), branches, args) for *shape, branches in PERMUTATIONS]
    print(permutation_markdown(permutations))
    write_results(rows, permutations, of, args.out)
    print(f"written: {args.out}/group_convolution.json, group_convolution.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
