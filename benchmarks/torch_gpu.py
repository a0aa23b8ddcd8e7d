"""PyTorch's side of bench_gpu.py: times blocks, or whole training steps, with CUDA events. One line of JSON for each.

The same modules as torch_net.py makes of our prototxt. Convolutions in FP32 as ours: TF32 is off. cuDNN may search for
its fastest algorithms. "graphs" replays CUDA graphs: of a block's two passes, or of the whole step with its update.
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

from benchmarks.torch_net import Net, translate
from prototxt_gen.proto import read_net

TURNS = 5


def fastest(device: str, seconds: float, call) -> float:
    """Milliseconds of one call, the fastest of several turns of many calls in a row, as time_nets.cpp does it."""
    for _ in range(3):
        call()

    def milliseconds_of(calls: int) -> float:
        if device == "cpu":
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return 1000 * (time.perf_counter() - start)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        for _ in range(calls):
            call()
        events[1].record()
        events[1].synchronize()
        return events[0].elapsed_time(events[1])

    one = max(milliseconds_of(3) / 3, 1e-3)
    calls = max(1, round(1000 * seconds / TURNS / one))
    return min(milliseconds_of(calls) / calls for _ in range(TURNS))


def memory_format(mode: str):
    return torch.channels_last if "channels_last" in mode else torch.contiguous_format


def time_block(path: Path, mode: str, device: str, seconds: float) -> dict:
    """Forward, and forward + backward less forward, of the layers behind a net's Input layer."""
    net = read_net(path)
    shape = list(net.layer[0].input_param.shape[0].dim)
    modules, width = [], shape[1]
    for layer in net.layer[1:]:
        module, width = translate(layer, width)
        modules.append(module)
    form = memory_format(mode)
    model = nn.Sequential(*modules).to(device, memory_format=form)
    x = torch.randn(shape, device=device).contiguous(memory_format=form).requires_grad_()
    if "compiled" in mode:
        torch.compiler.reset()  # or the blocks before count as this one's recompilations, of which there may be few
        model = torch.compile(model)
    if "graphs" in mode:
        model = torch.cuda.make_graphed_callables(model, (x,))
    top_diff = torch.randn_like(model(x))
    parameters = list(model.parameters())

    def both():
        torch.autograd.grad(model(x), [x, *parameters], top_diff)

    forward = fastest(device, seconds, lambda: model(x))
    return {"net": net.name, "forward": forward, "backward": fastest(device, seconds, both) - forward}


def time_step(path: Path, mode: str, device: str, batch: int, seconds: float) -> dict:
    """Forward, backward and update, the batch always the same: no data layer to wait for."""
    form = memory_format(mode)
    model = Net(read_net(path), channels=3).to(device, memory_format=form)
    data = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=form)
    label = torch.randint(0, 10, (batch,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=True)
    run = torch.compile(model) if "compiled" in mode else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        run(data, label).backward()
        optimizer.step()

    if "graphs" in mode:
        step = capture(step)
    return {"ms": fastest(device, seconds, step)}


def capture(step):
    """The step as one CUDA graph, after some steps on a stream of its own, as PyTorch's documentation has it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", type=Path, nargs="+", help="blocks behind an Input layer, or one train_val.prototxt")
    parser.add_argument("--mode", default="eager", help="words of: channels_last compiled graphs (%(default)s)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, help="time whole steps of this many images")
    parser.add_argument("--seconds", type=float, default=0.2)
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for path in args.nets:
        if args.batch_size:
            result = time_step(path, args.mode, args.device, args.batch_size, args.seconds)
        else:
            result = time_block(path, args.mode, args.device, args.seconds)
        print(json.dumps({**result, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
