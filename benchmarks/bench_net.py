"""A training step of whole nets, side by side: our layers, stock Caffe's, PyTorch. Writes a table, JSON and a chart.

A step is data, forward, backward and update; PyTorch runs without a data layer. The contestants take turns, and each
one's time is the median over all its turns. Ours also runs on one thread: its multiple of ours is what the others gain.
PyTorch is told to keep freed memory, which makes it faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.bench_data import write_images
from benchmarks.bench_report import CRASHED, MODES, ROOT, markdown, merged, origin, this_command, write_chart
from benchmarks.caffe_net import CaffeFailed, layer_times, train_steps
from benchmarks.limits import measure_speeds, step_passes
from prototxt_gen import make_net
from prototxt_gen.files import write_files

KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "10000000000",
    "MALLOC_TRIM_THRESHOLD_": "10000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}
ENGINES = {"fused": "ours", "stock": "stock Caffe"}


def read_nets(path: Path) -> dict[str, list[str]]:
    lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return {name: options for name, *options in lines}


def generate(name: str, options: list[str], folder: Path, batch: int):
    """folder/name/engine for both engines, reading the data in folder/data."""
    for engine in ENGINES:
        arguments = [*options, "--dataset", "cifar10", "--data-dir", folder / "data", "--engine", engine]
        arguments += ["--batch-size", batch, "--out", folder / name / engine, "--json"]
        with open(os.devnull, "w") as nowhere:
            shown, sys.stdout = sys.stdout, nowhere
            try:
                failed = make_net.main(list(map(str, arguments)))
            finally:
                sys.stdout = shown
        if failed:
            raise SystemExit(failed)


def torch_steps(args, net: Path, mode: str) -> list[float]:
    """Milliseconds of each step; none, with a warning, if PyTorch crashes, as 2.13 compiled does on C216."""
    command = [sys.executable, ROOT / "benchmarks/torch_net.py", net, "--mode", mode, "--steps", args.steps]
    command += ["--warm-up", args.warm_up, "--threads", args.threads, "--batch-size", args.batch_size]
    environment = {**os.environ, **KEEP_MEMORY, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(list(map(str, command)), env=environment, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        print(f"bench_net: warning: PyTorch {mode} failed on {net}: no times", file=sys.stderr, flush=True)
        return []
    return json.loads(done.stdout)["ms"]


def step_limits(net: Path, threads: int) -> dict:
    """A step's bytes and operations in billions, the machine's speeds, and the least ms of a step at them."""
    passes, speeds = step_passes(net), measure_speeds(threads)
    return {
        "gigabytes": 1e-9 * sum(one.bytes for one in passes),
        "gflop": 2e-9 * sum(one.multiply_adds for one in passes),
        "copy_gb_s": speeds.copy,
        "product_gflop_s": speeds.product,
        "limit_ms": speeds.limit_ms(passes),
    }


def bench(args, name: str, options: list[str], folder: Path) -> dict:
    """Median ms per step of every contestant, peak memory, what the machine could do, and time per layer type."""
    generate(name, options, folder, args.batch_size)
    times, memory = {}, {}
    for _ in range(args.turns):
        for engine, title in ENGINES.items():
            steps, megabytes = train_steps(args.caffe, folder / name / engine, args.steps, args.warm_up, args.threads)
            times.setdefault(title, []).extend(steps)
            memory[title] = max(megabytes, memory.get(title, 0))
        if args.threads > 1:
            steps, _ = train_steps(args.caffe, folder / name / "fused", args.steps, args.warm_up, threads=1)
            times.setdefault("ours, 1 thread", []).extend(steps)
        for mode in args.torch_modes:
            steps = torch_steps(args, folder / name / "fused" / "train_val.prototxt", mode)
            times.setdefault(f"PyTorch {mode}", []).extend(steps)
    timed = args.steps * args.turns
    layers = {
        title: layer_times(args.caffe, folder / name / engine / "train_val.prototxt", timed, args.threads)
        for engine, title in ENGINES.items()
    }
    medians = {title: statistics.median(steps) if steps else CRASHED for title, steps in times.items()}
    limits = step_limits(folder / name / "fused" / "train_val.prototxt", args.threads)
    result = {"net": name, "ms": medians, "peak_mb": memory, "limits": limits, "layer_ms": layers, "all_ms": times}
    return result | {"command": this_command()}


def write_results(results: list[dict], of: dict, args):
    """net.json, net.md and net.png in args.out: adds to what the same code on the same machine has for other nets."""
    path, head = args.out / "net.json", {"machine": of, "batch_size": args.batch_size}
    results = merged(path, head, "results", results, lambda result: result["net"])
    text = markdown(results, args.batch_size, of)
    record = json.dumps(head | {"results": results}, indent=1) + "\n"
    write_files({path: record.encode(), path.with_suffix(".md"): text.encode()})
    write_chart(results, path.with_suffix(".png"))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench_net", description=__doc__)
    parser.add_argument("nets", nargs="*", help="names from nets.txt (all)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5, help="timed in each turn (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them (%(default)s)")
    parser.add_argument(
        "--turns", type=int, default=3, help="so that a busy minute hits no contestant alone (%(default)s)"
    )
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
    with tempfile.TemporaryDirectory(prefix="bench_net_") as temporary:
        folder = Path(temporary)
        write_images(folder / "data" / "cifar10")
        for name in args.nets or nets:
            try:
                result = bench(args, name, nets[name], folder)
            except CaffeFailed as error:
                print(f"bench_net: error: {error}", file=sys.stderr)
                return 1
            print(markdown([result], args.batch_size), flush=True)
            write_results([result], of, args)  # each time: what ends the run later loses nothing
    print(f"written: {args.out}/net.json, net.md, net.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
