#!/usr/bin/env python3
"""Trains runs of the catalogue (experiments/catalogue.csv), one or many, and records what came out.

Each run, seed and number of epochs has its folder under experiments/runs/, with prototxt, snapshots and train.log, and
in the end its record under experiments/results/. What is recorded is not trained again, what is half done goes on from
its newest snapshot. Ctrl-C makes snapshots and stops. A run that fails leaves the others alone; the status is then 1.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from experiments.catalogue import Run, catalogue, select
from experiments.jobs import PREPARE, Job, list_jobs, runs_folder
from experiments.records import read_record
from experiments.train import Stopped, Training, TrainingError, caffe_binary
from prototxt_gen.command_line import Invalid, Parser, command, project_root
from prototxt_gen.datasets import BUILT_IN, read_folder

EXAMPLES = """examples:
  run.py table4/igcv2_c64_d8_cifar100                        five seeds of the paper's 400 epochs
  run.py 'table4/*_d8_cifar100' --epochs 10 --seeds 2        a shorter schedule of the same shape
  run.py 'figure2/*_l3_*' --epochs 2 --seed 1 --jobs 2       two at a time
  run.py --resume                                            all that was begun and is not done"""


def make_parser() -> Parser:
    parser = Parser(
        prog="run", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the catalogue, or patterns such as 'table4/*'")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, metavar="N", help="seeds 1 to N (the catalogue's: 5)")
    seeds.add_argument("--seed", type=int, metavar="S", help="this seed alone")
    parser.add_argument("--epochs", type=float, metavar="E", help="length; the shape stays (the paper's: 400 or 200)")
    parser.add_argument("--gpu", metavar="ID", help="as for `caffe train`: 0, or 0,1, or all (default: CPU)")
    parser.add_argument("--resume", action="store_true", help="only what was begun; without NAME all of it")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time (%(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each training (OMP_NUM_THREADS, or cores / jobs)")
    parser.add_argument("--prepare", action="store_true", help="write the run folders, and stop")
    return parser


def find_jobs(args) -> list[Job]:
    """What the options ask for. Raises Invalid."""
    for option in ("jobs", "threads"):
        if (value := getattr(args, option)) is not None and value < 1:
            raise Invalid(f"--{option} {value}: at least 1 is needed")
    if not args.names and not args.resume:
        raise Invalid("no run named: give names or patterns of experiments/catalogue.csv, or --resume")
    runs = select(args.names or ["*"])
    threads = args.threads or given_threads() or max(1, len(os.sched_getaffinity(0)) // args.jobs)
    if args.resume:
        return begun_jobs(args, runs, threads)
    for run in runs:
        if run.same_as:
            print(f"{run.name} is the same network as {run.same_as}, which is trained for both")
    seeds = None if args.seed is None else [args.seed]
    if args.seeds is not None:
        seeds = range(1, args.seeds + 1)
    return list_jobs(runs, seeds, args.epochs, args.gpu, threads)


def given_threads() -> int | None:
    """What OMP_NUM_THREADS says of the outermost parallel regions; None if it is not set. Raises Invalid."""
    value = os.environ.get("OMP_NUM_THREADS")
    if not value:
        return None
    if not (first := re.fullmatch(r"\s*([1-9]\d*)\s*(,.*)?", value)):
        raise Invalid(f"OMP_NUM_THREADS={value}: a number from 1 on is needed, or --threads")
    return int(first[1])


def begun_jobs(args, runs: list[Run], threads: int) -> list[Job]:
    """Those with a log and no record, within the given names, seeds and epochs. Raises Invalid if none is."""
    found = []
    for run in dict.fromkeys(catalogue()[run.trained] for run in runs):
        for folder in sorted((runs_folder() / run.name).glob("seed*_e*")):
            if match := re.fullmatch(r"seed(\d+)_e([\d.e+-]+)", folder.name):
                job = Job(run, int(match[1]), float(match[2]), args.gpu, threads)
                wanted = args.seed in (None, job.seed) and (args.seeds is None or job.seed <= args.seeds)
                if wanted and args.epochs in (None, job.epochs) and job.begun and not job.record_path.exists():
                    found.append(job)
    if not found:
        raise Invalid("--resume: none of these runs is begun and unfinished; without --resume they start")
    return found


def check_data(dataset: str) -> None:
    """Raises Invalid if data/<dataset> is not there, with the command that prepares it, or is another data set."""
    folder, expected = project_root() / "data" / dataset, BUILT_IN[dataset]
    for name in ("train_lmdb", "test_lmdb", "dataset.json"):
        if not (folder / name).exists():
            raise Invalid(f"data/{dataset}/{name} is not there: prepare the data first: {PREPARE[dataset]}")
    found = read_folder(folder)
    for what in ("classes", "train", "test", "size"):
        if getattr(found, what) != getattr(expected, what):
            raise Invalid(
                f"data/{dataset} has {what} {getattr(found, what)} instead of {getattr(expected, what)}: "
                f"remove it, and prepare the complete data set: {PREPARE[dataset]}"
            )


def check_caffe(gpu: str | None) -> None:
    """Raises Invalid if there is no Caffe, or it cannot use this GPU."""
    try:
        caffe = caffe_binary()
    except TrainingError as error:
        raise Invalid(str(error)) from None
    if gpu is None:
        return
    result = subprocess.run([caffe, "device_query", f"-gpu={gpu}"], capture_output=True, text=True)
    if result.returncode == 0:
        return
    fatal = re.search(r"^F\d{4,8} .*?\] (.*)", result.stderr, re.MULTILINE)
    if "CPU-only" in result.stderr:
        raise Invalid(
            f"--gpu {gpu}: this Caffe is built for the CPU alone: build it with CUDA (README, GPU), or leave --gpu out"
        )
    raise Invalid(f"--gpu {gpu}: {fatal[1] if fatal else 'caffe device_query fails'}")


class Queue:
    """Trains jobs, some at a time. A failure is reported and leaves the others alone."""

    def __init__(self):
        self.running: dict[str, Training] = {}
        self.failed: list[str] = []
        self.stopping = threading.Event()

    def train(self, job: Job) -> None:
        if self.stopping.is_set():
            return
        try:
            record = job.train(lambda training: self._started(job, training))
            print(f"{job.name}: final test accuracy {record.test_accuracy:.2f} %", flush=True)
        except Stopped as stopped:
            print(f"{job.name}: {stopped}", flush=True)
        except Exception as error:  # whatever it is, it is of this run
            self.failed.append(job.name)
            reason = error if isinstance(error, (Invalid, TrainingError)) else repr(error)
            print(f"error: {job.name}: {reason}", file=sys.stderr, flush=True)
        finally:
            self.running.pop(job.name, None)

    def _started(self, job: Job, training: Training) -> None:
        self.running[job.name] = training
        if self.stopping.is_set():  # since train() looked
            training.stop()

    def stop(self, *_) -> None:
        """On Ctrl-C or SIGTERM: those that run make a snapshot, the others do not start."""
        if not self.stopping.is_set():
            print("stopping at snapshots ...", flush=True)
        self.stopping.set()
        for training in list(self.running.values()):
            training.stop()


@command
def main(argv=None):
    args = make_parser().parse_args(argv)
    os.chdir(project_root())  # the paths in the prototxt are relative to it
    jobs = []
    for job in find_jobs(args):
        if job.record_path.exists():
            print(f"{job.name}: done, {read_record(job.record_path).test_accuracy:.2f} % ({job.record_path})")
        else:
            jobs.append(job)
    if args.prepare:
        for job in jobs:
            job.prepare()
        print(f"{len(jobs)} run folders written")
        return 0
    for dataset in {job.run.dataset: None for job in jobs}:
        check_data(dataset)
    check_caffe(args.gpu)
    queue = Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, queue.stop)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(queue.train, jobs))
    if queue.failed:
        print(f"{len(queue.failed)} of {len(jobs)} trainings failed: {', '.join(queue.failed)}", file=sys.stderr)
    return 1 if queue.failed or queue.stopping.is_set() else 0


if __name__ == "__main__":
    raise SystemExit(main())
