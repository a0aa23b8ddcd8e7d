"""Blocks and whole training steps on a GPU: ours beside PyTorch and a device copy. Writes a table and JSON.

Two halves, for machines with a GPU and little else. `prepare DIR` writes nets and images; it needs our Python packages.
`run DIR` needs time_nets and caffe, built for that GPU (--programs: their folder, or a bundle's `run`), and, for
PyTorch's part, a Python with torch and protobuf. Every result is saved at once; a run that was cut off goes on where it
stopped, and --again starts over. `run --device cpu` goes through all of it on a machine without a GPU: a test of the
benchmark, whose times mean nothing.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.bench_report import ROOT, commit, reason, relative
from benchmarks.gpu_report import markdown

NETS = ("igcv2_c64_d20", "igcv2star_c216_d20", "igcv1_c48_d20", "xception_c35_d20")
BATCHES = (64, 256)
BLOCKS = "igcv2-c64|igcv2star-c216|igcv1-c48|xception-c35"
BLOCK_MODES = ("eager", "channels_last", "compiled", "graphs")
STEP_MODES = (*BLOCK_MODES, "channels_last compiled", "channels_last graphs", "compiled graphs")
# Ours, by what differs from the generated solver and net.
OURS = {
    "ours": {},
    "ours, CUDA graphs": {"cuda_graphs": True},
    "ours, stock Nesterov solver": {"type": "Nesterov"},
    "ours, no data layer": {"net": "constant.prototxt"},
}
WINDOWS = 5  # of as many steps as fill a turn; the first two warm up


class Failed(Exception):
    """A program that did not run to its end; the message is its last line."""


def prepare(folder: Path, batches):
    """Nets of blocks in folder/blocks, whole nets in folder/NAME_BATCH/fused, images, and what reads prototxt there.

    Paths in them are relative to the folder, so that it may be moved.
    """
    from benchmarks.bench_data import write_images
    from benchmarks.bench_group_convolution import read_shapes
    from benchmarks.bench_net import generate, read_nets
    from prototxt_gen.proto import pb, to_text

    shutil.rmtree(folder, ignore_errors=True)
    write_images(folder / "data" / "cifar10")
    (folder / "blocks").mkdir()
    for name, net in read_shapes(ROOT / "benchmarks/group_convolution_shapes.txt").items():
        (folder / "blocks" / f"{name}.prototxt").write_text(to_text(net))
    options = read_nets(ROOT / "benchmarks/nets.txt")
    for batch in batches:
        for name in NETS:
            generate(f"{name}_{batch}", options[name], folder, batch)
    for path in folder.glob("*/fused/*.prototxt"):
        text = path.read_text()
        for written in (folder.absolute(), relative(str(folder.absolute()))):  # below the project they are short
            text = text.replace(f'"{written}/', '"')
        path.write_text(text)
    for path in folder.glob("*/fused/train_val.prototxt"):
        path.with_name("constant.prototxt").write_text(to_text(without_data(path)))
    (folder / "commit.txt").write_text(commit())
    messages = folder / "python" / "caffe" / "proto"  # pycaffe itself need not be there
    messages.mkdir(parents=True)
    for package in (messages, messages.parent):
        (package / "__init__.py").touch()
    shutil.copy(pb.__file__, messages)


def without_data(path: Path):
    """The net with a constant batch in place of the training images."""
    from prototxt_gen.proto import read_net

    net = read_net(path)
    for layer in net.layer:
        if layer.type == "AugmentedData":
            batch = layer.augmented_data_param.batch_size
            layer.type = "DummyData"
            layer.ClearField("augmented_data_param")
            layer.dummy_data_param.shape.add(dim=[batch, 3, 32, 32])
            layer.dummy_data_param.shape.add(dim=[batch])
            layer.dummy_data_param.data_filler.add(type="constant", value=1)
    return net


class Programs:
    """How the programs of our build are started."""

    def __init__(self, where: Path, folder: Path):
        self.where, self.folder = where.absolute(), folder

    def command(self, name: str) -> list:
        return [self.where, name] if self.where.is_file() else [self.where / name]

    def output(self, command: list, **environment) -> subprocess.CompletedProcess:
        """Runs it in the prepared folder. Raises Failed."""
        done = subprocess.run(
            list(map(str, command)), cwd=self.folder, env={**os.environ, **environment}, text=True, capture_output=True
        )
        if done.returncode:
            raise Failed(reason(done.stderr or done.stdout) or f"exit status {done.returncode}")
        return done


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def our_blocks(args, programs: Programs, paths: list[Path]) -> list[dict]:
    number = 0 if args.device == "cuda" else -1
    return json_lines(programs.output([*programs.command("time_nets"), number, args.seconds, *paths]).stdout)


def torch_command(args, nets: list[Path], mode: str) -> list:
    script = ROOT / "benchmarks/torch_gpu.py"
    return [args.python, script, *nets, "--mode", mode, "--device", args.device, "--seconds", args.seconds]


def torch_environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "python"), os.environ.get("PYTHONPATH")]))}


def our_step(args, programs: Programs, net: str, changes: dict) -> dict:
    """ms: the fastest window of `caffe train`, whose timer is CUDA events in GPU mode; median: of all windows."""
    from benchmarks.caffe_net import short_solver, step_times
    from prototxt_gen.proto import pb

    folder = programs.folder / net / "fused"
    if not folder.exists():
        raise Failed(f"{folder} is not there: `bench_gpu.py prepare` with its batch size makes it")
    changes = {"solver_mode": getattr(pb.SolverParameter, "GPU" if args.device == "cuda" else "CPU"), **changes}
    if "net" in changes:
        changes["net"] = f"{net}/fused/{changes['net']}"
    solver = short_solver(folder, WINDOWS * args.steps + 1, args.steps, **changes)
    command = [*programs.command("caffe"), "train", "-solver", solver.relative_to(programs.folder)]
    windows = step_times(programs.output(command).stderr, args.steps)[2:]
    return {"ms": min(windows), "median": sorted(windows)[len(windows) // 2]}


def contestants(args, programs: Programs):
    """(key, what measures it) of everything; the key is a path into the record."""
    blocks = sorted(p for p in (programs.folder / "blocks").glob("*.prototxt") if re.match(args.blocks, p.stem))
    yield ("blocks", "ours"), lambda: our_blocks(args, programs, blocks)
    environment = torch_environment(programs.folder)
    for mode in args.block_modes:
        command = torch_command(args, blocks, mode)
        yield ("blocks", f"PyTorch {mode}"), lambda c=command: json_lines(programs.output(c, **environment).stdout)
    for net in args.nets:
        for batch in args.batches:
            name = f"{net}_{batch}"
            for title, changes in OURS.items():
                yield ("steps", name, title), lambda n=name, c=changes: our_step(args, programs, n, c)
            for mode in args.step_modes:
                net_file = programs.folder / name / "fused" / "train_val.prototxt"
                command = [*torch_command(args, [net_file], mode), "--batch-size", batch]
                yield (
                    ("steps", name, f"PyTorch {mode}"),
                    lambda c=command: json_lines(programs.output(c, **environment).stdout)[0],
                )


def machine(device: str, folder: Path) -> dict:
    """Of the record. Raises Failed where there is no GPU. Without a git repository the commit is that of `prepare`."""
    prepared = folder / "commit.txt"
    of = commit() if (ROOT / ".git").exists() or not prepared.exists() else prepared.read_text()
    if device == "cpu":
        return {"gpu": "none: a test of the benchmark on the CPU", "commit": of}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader", "--id=0"]
    try:
        found = subprocess.run(query, text=True, capture_output=True)
    except OSError:
        found = None
    if not found or found.returncode:
        raise Failed("no GPU on this machine (nvidia-smi finds none), so nothing is measured")
    name, driver, memory = found.stdout.strip().split(", ")
    return {"gpu": name, "driver": driver, "memory": memory, "commit": of}


def run(args) -> int:
    of = machine(args.device, args.folder)
    programs = Programs(args.programs, args.folder.absolute())
    path = args.out / ("gpu.json" if args.device == "cuda" else "gpu_dry_run.json")
    record = json.loads(path.read_text()) if path.exists() and not args.again else {}
    if record.get("machine") != of:
        record = {"machine": of, "results": {}}
    sys.path.insert(1, str(programs.folder / "python"))
    args.out.mkdir(parents=True, exist_ok=True)
    for key, measure in contestants(args, programs):
        name = " / ".join(key)
        if "error" not in record["results"].get(name, {"error"}):
            continue
        print(name, end=" ... ", flush=True)
        try:
            record["results"][name] = measure()
            print("done")
        except Failed as error:  # the others go on
            record["results"][name] = {"error": relative(str(error))}
            print(error)
        path.write_text(json.dumps(record, indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))
    print(f"written: {path}, {path.with_suffix('.md')}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench_gpu", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["prepare", "run"], help="see the top of the file")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES, help="(%(default)s)")
    parser.add_argument("--programs", type=Path, default=ROOT / "build/cuda13/caffe/bin", help="(%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="one with torch (this one)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--blocks", default=BLOCKS, help="regular expression that a block's name begins with")
    parser.add_argument("--block-modes", nargs="*", default=BLOCK_MODES, metavar="MODE", help="of PyTorch")
    parser.add_argument("--nets", nargs="*", default=NETS, choices=NETS)
    parser.add_argument("--step-modes", nargs="*", default=STEP_MODES, metavar="MODE", help="of PyTorch")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each time of a block (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="in a row, between two looks at the time (%(default)s)")
    parser.add_argument("--again", action="store_true", help="measure what is in the record already, too")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="(%(default)s)")
    return parser


def main(argv=None) -> int:
    args = make_parser().parse_args(argv)
    try:
        if args.what == "run":
            return run(args)
        prepare(args.folder, args.batches)
        print(f"prepared: {args.folder}")
        return 0
    except Failed as error:
        print(f"bench_gpu: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
