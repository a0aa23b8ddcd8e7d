"""Writes a network of the paper, or one like it: train_val.prototxt, deploy.prototxt, solver.prototxt, readme.md."""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.architecture import Options
from prototxt_gen.architectures import ARCHITECTURES
from prototxt_gen.command_line import Parser, command
from prototxt_gen.datasets import BUILT_IN
from prototxt_gen.experiment import ENGINES, Experiment, build
from prototxt_gen.summary import print_summary


def make_parser() -> Parser:
    parser = Parser(prog="make_net", description=__doc__)
    net = parser.add_argument_group("network")
    net.add_argument("--arch", required=True, metavar="NAME", help=", ".join(ARCHITECTURES))
    net.add_argument("--width", type=int, default=64, metavar="C", help="channels of the first stage (%(default)s)")
    net.add_argument("--depth", type=int, default=20, help="3B + 2, B blocks in each of three stages (%(default)s)")
    net.add_argument("--layers", type=int, metavar="L", help="group convolutions in a block")
    net.add_argument(
        "--channels-per-branch",
        type=branches,
        metavar="K[,K,K]",
        help="one for all stages or one for each; 8x4 gives each 1x1 convolution its own",
    )
    net.add_argument("--first-width", type=int, metavar="C", help="channels of the first convolution")
    net.add_argument(
        "--downsampling",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="three stages with skips, or one width without (tables 2 and 5)",
    )
    net.add_argument(
        "--layers-from",
        choices=("each-stage", "first-stage"),
        default="each-stage",
        help="IGC-V2*: the width that L* follows (%(default)s)",
    )
    run = parser.add_argument_group("training")
    run.add_argument(
        "--dataset", default="cifar100", help=f"{', '.join(BUILT_IN)}, or a folder made by data_prep (%(default)s)"
    )
    run.add_argument("--data-dir", type=Path, help="folder of the prepared data sets (data)")
    run.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    run.add_argument("--test-batch-size", type=int, help="a divisor of the test set's size")
    run.add_argument(
        "--epochs", type=float, help="length of the run; its shape stays (the paper's: 400, Tiny ImageNet 200)"
    )
    run.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    run.add_argument("--gpu", action="store_true", help="solver_mode GPU")
    run.add_argument("--engine", choices=ENGINES, default="fused", help="our layers, or plain Caffe's (%(default)s)")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="DIR", help="(experiments/NAME)")
    output.add_argument("--force", action="store_true", help="replace files that differ")
    output.add_argument("--summary-only", action="store_true", help="write nothing")
    output.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def branches(text: str) -> tuple[tuple[int, ...], ...]:
    """'8,16x4' -> ((8,), (16, 4))"""
    try:
        per_stage = tuple(tuple(int(k) for k in stage.split("x")) for stage in text.split(","))
    except ValueError:
        per_stage = ()
    if not per_stage or min(map(min, per_stage)) < 1:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not K, K,K,K or KxK,KxK,KxK with numbers from 1 on, such as 8,16,32"
        )
    return per_stage


@command
def main(argv=None):
    args = make_parser().parse_args(argv)
    options = Options(
        args.width,
        args.depth,
        args.layers,
        args.channels_per_branch,
        args.first_width,
        args.downsampling,
        args.layers_from,
    )
    files = build(
        Experiment(
            args.arch,
            options,
            args.dataset,
            args.batch_size,
            args.test_batch_size,
            args.epochs,
            args.seed,
            args.engine,
            args.gpu,
            args.out,
            args.data_dir,
        )
    )
    written = [] if args.summary_only else files.write(args.force)
    if args.json:
        print(json.dumps({**files.summary, "written": [str(path) for path in written]}, indent=2))
        return
    print_summary(files.summary)
    if not args.summary_only:
        print(f"  {files.folder}: {', '.join(p.name for p in written) + ' written' if written else 'up to date'}")


if __name__ == "__main__":
    raise SystemExit(main())
