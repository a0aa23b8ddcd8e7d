"""The paper's theory of blocks (equations 6 to 14) as a command: check a block, find the widest, sweep K or L, draw."""

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from prototxt_gen.blocks import check_branch
from prototxt_gen.command_line import Invalid, Parser, command
from prototxt_gen.conditions import (
    BlockReport,
    Design,
    best_layers,
    least_parameters,
    report,
    sweep_branches,
    sweep_layers,
    widest,
)
from prototxt_gen.figures import draw_block
from prototxt_gen.group_convolution import GroupConvolution
from prototxt_gen.permutations import interleave
from prototxt_gen.summary import print_columns

EXAMPLES = """examples:
  design check --width 64 --channels-per-branch 1,8,8        the block of IGC-V2 (C64)
  design check --width 98 --channels-per-branch 2,7,7        IGC-V2 I
  design check --width 8 --channels-per-branch 2,2,2 --interleave 4,2
  design widest --params 4752 --layers 3                     the widest block with these parameters
  design sweep --params 4752 --layers 3                      figure 2: all K
  design sweep --params 4752                                 figure 3: all L
  design draw --width 8 --channels-per-branch 2,2,2 --out block.png"""


def make_parser() -> Parser:
    parser = Parser(
        prog="design", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, help_text in (
        ("check", "conditions, paths, Q and its bounds of a block"),
        ("draw", "a picture of a block"),
    ):
        sub = commands.add_parser(name, help=help_text)
        sub.add_argument("--width", type=int, required=True, metavar="C")
        sub.add_argument("--channels-per-branch", type=numbers, required=True, metavar="K1,...,KL",
                         help="of each convolution; 1 is a channel-wise one")  # fmt: skip
        sub.add_argument(
            "--kernel", type=odd, default=3, help="size of the first convolution; all others are 1x1 (%(default)s)"
        )
    commands.choices["check"].add_argument(
        "--interleave", type=numbers, metavar="G1,...", help="the L - 1 permutations, instead of the generated ones"
    )
    commands.choices["draw"].add_argument("--out", type=Path, required=True, metavar="PICTURE")
    for name, help_text in (("widest", "the widest dense block for a budget"), ("sweep", "all K for one L, or all L")):
        sub = commands.add_parser(name, help=help_text)
        sub.add_argument("--params", type=int, required=True, metavar="Q", help="parameters of a block")
        sub.add_argument("--kernel", type=odd, default=3, help="size of the channel-wise convolution (%(default)s)")
    commands.choices["widest"].add_argument("--layers", type=int, required=True, metavar="L")
    commands.choices["widest"].add_argument(
        "--exact", action="store_true", help="one path only: the product of all K is C"
    )
    commands.choices["sweep"].add_argument(
        "--layers", type=int, metavar="L", help="one L: K varies (figure 2); none: L varies"
    )
    commands.choices["sweep"].add_argument("--up-to", type=int, default=8, metavar="L", help="largest L (%(default)s)")
    for sub in commands.choices.values():
        if sub.prog.split()[-1] != "draw":
            sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


def numbers(text: str) -> list[int]:
    try:
        values = [int(n) for n in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers from 1 on, such as 1,8,8")
    return values


def odd(text: str) -> int:
    if not re.fullmatch(r"\d*[13579]", text):
        raise argparse.ArgumentTypeError(f"'{text}' is not an odd number from 1 on")
    return int(text)


def make_block(width: int, per_branch: list[int], kernel: int) -> list[GroupConvolution]:
    """A spatial group convolution, then 1x1 ones, all of one width."""
    if width < 1:
        raise Invalid(f"--width {width}: a width is at least 1")
    groups = [width // check_branch(width, k) for k in per_branch]
    return [GroupConvolution(width, width, group, 1 if i else kernel) for i, group in enumerate(groups)]


def given_permutations(width: int, branches: list[int], layers: int) -> list[np.ndarray]:
    """P_1 ... P_{L-1} as interleaves; the order of channels outside the block does not matter to the conditions."""
    if len(branches) != layers - 1:
        raise Invalid(
            f"--interleave has {len(branches)} values: {layers} convolutions have {layers - 1} permutations between"
        )
    for g in branches:
        if width % g:
            raise Invalid(f"--interleave {g} does not divide the width {width}")
    same = np.arange(width)
    return [same, *(interleave(width, g) for g in branches), same]


def check(args) -> tuple[dict, list[str]]:
    convolutions = make_block(args.width, args.channels_per_branch, args.kernel)
    perms = given_permutations(args.width, args.interleave, len(convolutions)) if args.interleave else None
    found: BlockReport = report(convolutions, perms)
    layers, area = len(convolutions), args.kernel**2
    bound, best = least_parameters(args.width, layers, area), best_layers(args.width, area)
    composed = "not examined"
    if found.paths:
        composed = f"{found.density:.1%} dense, {found.paths[0]} to {found.paths[1]} paths between two channels"
    lines = [
        f"C = {args.width}, K = {', '.join(map(str, found.branches))}, S = {area}, L = {layers}",
        f"complementary condition: {found.complementary or 'met'}",
        f"composed kernel: {composed}",
        f"Q = {found.parameters:,}; the least for dense kernels with this L is {bound:,.0f} (equation 10)",
        f"balance: Q is {found.balance:.3f} times its bound for this product (equation 9); 1 is balanced",
        f"non-sparsity: {found.non_sparsity:.4f}",
        f"best L = log(SC) = {best:.2f}: Q at least {least_parameters(args.width, max(1, round(best)), area):,.0f}",
    ]
    return {**asdict(found), "least_parameters": bound, "best_layers": best}, lines


def design_row(design: Design) -> dict:
    facts = report(design.convolutions)
    return {"layers": len(design.branches) + 1, "width": design.width, "branches": list(design.branches),
            "parameters": design.parameters, "redundancy": design.redundancy, "verdict": facts.verdict,
            "balance": facts.balance, "density": facts.density, "non_sparsity": facts.non_sparsity}  # fmt: skip


def find_designs(args) -> list[Design]:
    area = args.kernel**2
    least = area + 1
    if args.params < least:
        raise Invalid(f"--params {args.params}: one channel already takes {least} parameters")
    if args.layers is not None and args.layers < 2:
        raise Invalid(
            f"--layers {args.layers}: a block has a spatial convolution and at least one 1x1, so L is 2 or more"
        )
    if args.command == "sweep" and args.layers is None and args.up_to < 2:
        raise Invalid(f"--up-to {args.up_to}: L is 2 or more")
    if args.command == "widest":
        designs = [widest(args.params, args.layers, area, args.exact)]
    elif args.layers:
        designs = sweep_branches(args.params, args.layers, area)
    else:
        designs = sweep_layers(args.params, args.up_to, area)
    designs = [design for design in designs if design]
    if not designs:
        raise Invalid(f"--params {args.params}: {_none_found(args)}")
    return designs


def _none_found(args) -> str:
    if args.command == "sweep":
        return f"no block of L = {args.layers} with one K has within 10 % of so many parameters"
    kind = "with one path" if args.exact else "with a dense kernel"
    least = args.kernel**2 + args.layers - 1
    return f"no block of L = {args.layers} {kind} has so few parameters: one channel takes {least}"


def print_designs(rows: list[dict]):
    """Among several K for one L, the row nearest to one path is marked: the red bar of figure 2."""
    one_l = len(rows) > 1 and len({row["layers"] for row in rows}) == 1
    best = min(rows, key=lambda row: abs(row["redundancy"] - 1)) if one_l else None
    head = ("", "L", "C", "K", "params", "paths per pair", "composed kernel", "Q / bound", "non-sparsity")
    print_columns([head] + [
        ("*" if row is best else "", str(row["layers"]), str(row["width"]), ", ".join(map(str, row["branches"])),
         f"{row['parameters']:,}", f"{row['redundancy']:.3g}", row["verdict"], f"{row['balance']:.3f}",
         f"{row['non_sparsity']:.4f}") for row in rows])  # fmt: skip


@command
def main(argv=None):
    args = make_parser().parse_args(argv)
    if args.command == "draw":
        draw_block(make_block(args.width, args.channels_per_branch, args.kernel), args.out)
        print(f"{args.out} written")
        return
    if args.command == "check":
        result, lines = check(args)
    else:
        result = [design_row(design) for design in find_designs(args)]
    if args.json:
        print(json.dumps(result, indent=2))
    elif args.command == "check":
        print("\n".join(lines))
    else:
        print_designs(result)


if __name__ == "__main__":
    raise SystemExit(main())
