"""Times inference of one net in one runtime, through its Python interface, and prints one line of JSON.

A step sets the input, runs the net and reads the output, with the same images every time. To be started with the number
of threads in OMP_NUM_THREADS (bench_inference.py does).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))


def load_caffe(model: Path):
    """net.forward of pycaffe. A net's weights lie beside it."""
    import caffe

    net = caffe.Net(str(model), caffe.TEST, weights=str(model.with_suffix(".caffemodel")))

    def run(images):
        if net.blobs["data"].data.shape != images.shape:
            net.blobs["data"].reshape(*images.shape)
        net.blobs["data"].data[...] = images
        return net.forward()["prob"]

    return run


def load_onnx(model: Path):
    """ONNX Runtime with all graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if THREADS > 1:  # the other threads' CPUs, counted from 1: what OMP_PROC_BIND is for the others
        cpus = ";".join(str(cpu + 1) for cpu in sorted(os.sched_getaffinity(0))[1:THREADS])
        options.add_session_config_entry("session.intra_op_thread_affinities", cpus)
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"data": images})[0]


def load_torch(model: Path, mode: str):
    import torch

    from benchmarks.torch_net import Net, channel_order
    from prototxt_gen.proto import read_net, read_weights

    torch.set_num_threads(THREADS)
    net = Net(read_net(model), channels=3).eval()
    blobs = [blob for layer in read_weights(model.with_suffix(".caffemodel")).layer for blob in layer.blobs]
    with torch.no_grad():  # in the same order
        for parameter, blob in zip(net.parameters(), blobs, strict=True):
            parameter.copy_(torch.tensor(blob.data).reshape(parameter.shape))
    net = net.to(memory_format=channel_order(mode))
    compiled = torch.compile(net) if "compiled" in mode else net

    def run(images):
        with torch.inference_mode():
            return compiled(torch.from_numpy(images).to(memory_format=channel_order(mode))).numpy()

    return run


def time_steps(run, images, seconds: float) -> list[float]:
    """Milliseconds of each step, for so many seconds but at least three steps, after a third of that to warm up."""
    times, start = [], time.perf_counter()
    while (now := time.perf_counter()) < start + seconds * 4 / 3 or len(times) < 5:
        run(images)
        times.append((now, (time.perf_counter() - now) * 1000))
    timed = [ms for begin, ms in times if begin > start + seconds / 3]
    return timed if len(timed) >= 3 else [ms for _, ms in times[2:]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runtime", choices=("caffe", "onnx", "torch"))
    parser.add_argument("model", type=Path, help=".prototxt, with .caffemodel beside it for caffe; .onnx for onnx")
    parser.add_argument("--mode", default="eager", help="of PyTorch (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.5)
    args = parser.parse_args()
    images = np.random.default_rng(1).standard_normal((args.batch_size, 3, args.size, args.size)).astype(np.float32)
    loaders = {"caffe": load_caffe, "onnx": load_onnx, "torch": lambda model: load_torch(model, args.mode)}
    run = loaders[args.runtime](args.model)
    output = run(images).reshape(args.batch_size, -1)
    print(json.dumps({"ms": time_steps(run, images, args.seconds), "output": output[0].tolist()}))


if __name__ == "__main__":
    main()
