"""Inference of whole nets, side by side: our layers, stock Caffe, ONNX Runtime, PyTorch. Writes a table, JSON, a chart.

All run the same net with the same weights, batch norm folded, each through its Python interface: set the input, run,
read the output. Each is a process of its own, with its threads bound to CPUs; they take turns, and each one's time is
the median over all its turns. Their outputs are compared first.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.bench_data import write_images
from benchmarks.bench_net import KEEP_MEMORY, generate, read_nets
from benchmarks.bench_report import CRASHED, MODES, ROOT, inference_markdown, merged, origin, this_command, write_chart
from benchmarks.caffe_net import CaffeFailed, layer_times
from prototxt_gen.files import write_files
from prototxt_gen.fold_batch_norm import fold
from prototxt_gen.proto import read_net, read_weights
from prototxt_gen.to_onnx import to_onnx
from prototxt_gen.to_stock import to_stock
from prototxt_gen.weights import net_files, with_blobs

NETS = ("igcv2_c64_d20", "igcv2star_c216_d20", "igcv1_c48_d20", "xception_c35_d20", "resnet_c16_d20")
LEARN_STATISTICS = """
import caffe, sys
net = caffe.Net(sys.argv[1], caffe.TRAIN)
for _ in range(3): net.forward()
net.save(sys.argv[2])
"""


def prepare(name: str, options: list[str], folder: Path):
    """Folded nets with the same weights in folder/name: ours, stock and net.onnx. Statistics are of random images."""
    generate(name, options, folder, batch=64)
    home = folder / name
    weights = home / "trained.caffemodel"
    command = [sys.executable, "-c", LEARN_STATISTICS, home / "fused" / "train_val.prototxt", weights]
    subprocess.run(command, check=True, env={**os.environ, "GLOG_minloglevel": "2"})
    folded = fold(with_blobs(read_net(home / "fused" / "deploy.prototxt"), read_weights(weights)))
    for engine, net in (("ours", folded), ("stock", to_stock(folded))):
        write_files(net_files(net, home / f"{engine}.prototxt", home / f"{engine}.caffemodel"))
    write_files({home / "net.onnx": to_onnx(folded).SerializeToString()})


def contestants(home: Path, torch_modes: list[str]) -> dict[str, list]:
    """Title -> arguments of run_inference.py"""
    result = {
        "ours": ["caffe", home / "ours.prototxt"],
        "ONNX Runtime": ["onnx", home / "net.onnx"],
        "stock Caffe": ["caffe", home / "stock.prototxt"],
    }
    return result | {f"PyTorch {mode}": ["torch", home / "ours.prototxt", "--mode", mode] for mode in torch_modes}


def run(arguments: list, batch: int, args) -> dict:
    command = [sys.executable, ROOT / "benchmarks/run_inference.py", *arguments]
    command += ["--batch-size", batch, "--seconds", args.seconds]
    threads = str(args.threads)
    environment = {**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    environment["GLOG_minloglevel"] = "2"
    if "compiled" not in str(
        arguments[-1]
    ):  # it has a second OpenMP runtime, to which the first one's binding leaves one CPU
        environment["OMP_PROC_BIND"] = "true"
    done = subprocess.run(list(map(str, command)), env=environment, text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def bench(args, name: str, home: Path, batch: int) -> dict:
    """Median ms per batch of every contestant, and our and stock Caffe's time per layer type."""
    times, outputs = {}, {}
    for _ in range(args.turns):
        for title, arguments in contestants(home, args.torch_modes).items():
            try:
                result = run(arguments, batch, args)
            except subprocess.CalledProcessError:
                if not title.startswith("PyTorch"):
                    raise
                print(f"bench_inference: warning: {title} failed on {name}: no times", file=sys.stderr, flush=True)
                times.setdefault(title, [])
                continue
            times.setdefault(title, []).extend(result["ms"])
            outputs[title] = np.array(result["output"])
    for title, output in outputs.items():
        if not np.allclose(output, outputs["ours"], atol=1e-4):
            raise CaffeFailed(f"{name}: {title} computes something else than ours")
    layers = {}
    for engine, title in (("ours", "ours"), ("stock", "stock Caffe")):
        net = read_net(home / f"{engine}.prototxt")
        net.layer[0].input_param.shape[0].dim[0] = batch
        timed = home / f"{engine}_{batch}.prototxt"
        write_files(net_files(net, timed, None))
        iterations = max(3, min(50, int(1000 * args.seconds / statistics.median(times[title]))))
        by_type = layer_times(args.caffe, timed, iterations, args.threads, "TEST")
        layers[title] = {kind: [forward] for kind, (forward, _) in by_type.items()}
    medians = {title: statistics.median(steps) if steps else CRASHED for title, steps in times.items()}
    return {"net": name, "batch": batch, "ms": medians, "layer_ms": layers, "command": this_command()}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench_inference", description=__doc__.split("\n")[0])
    parser.add_argument("nets", nargs="*", default=NETS, help="names from nets.txt (%(default)s)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=1.5, help="in each turn (%(default)s)")
    parser.add_argument("--turns", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--torch-modes", nargs="*", default=MODES[:3], choices=MODES)
    parser.add_argument("--caffe", type=Path, default=ROOT / "build/caffe/bin/caffe", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="(%(default)s)")
    return parser


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    nets = read_nets(ROOT / "benchmarks/nets.txt")
    if wrong := set(args.nets) - set(nets):
        parser.error(f"no net '{min(wrong)}' in benchmarks/nets.txt: it has {', '.join(nets)}")
    if not args.caffe.exists():
        parser.error(f"no {args.caffe}: run `make` first, or name another with --caffe")
    of = origin(args.threads)  # of the code as it starts
    with tempfile.TemporaryDirectory(prefix="bench_inference_") as temporary:
        folder = Path(temporary)
        write_images(folder / "data" / "cifar10")
        for name in args.nets:
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    prepare(name, nets[name], folder)
                for batch in args.batch_sizes:
                    result = bench(args, name, folder / name, batch)
                    print(inference_markdown([result]), flush=True)
                    write_results([result], of, args.out)  # what ends the run later loses nothing
            except (CaffeFailed, subprocess.CalledProcessError) as error:
                print(f"bench_inference: error: {error}", file=sys.stderr)
                return 1
    return 0


def write_results(results: list[dict], of: dict, folder: Path):
    """Adds to what the same code on the same machine has written for other nets and batch sizes."""
    path = folder / "inference.json"
    results = merged(path, {"machine": of}, "results", results, lambda result: (result["net"], result["batch"]))
    record = json.dumps({"machine": of, "results": results}, indent=1) + "\n"
    write_files({path: record.encode(), path.with_suffix(".md"): inference_markdown(results, of).encode()})
    labelled = [{**result, "net": f"{result['net']}\nbatch {result['batch']}"} for result in results]
    write_chart(labelled, folder / "inference.png", "ms per batch")
    print(f"written: {folder}/inference.json, inference.md, inference.png")


if __name__ == "__main__":
    raise SystemExit(main())
