#!/usr/bin/env python3
"""The paper's experiments: a row of catalogue.csv for each training that its tables 2 to 7 and figures 2 to 4 ask for.

K: channels per branch of the 1x1 convolutions (IGC-V1: of the 3x3), one for all stages or one for each, 5x6x6 where
those of a block differ. L: group convolutions in a block, likewise. paper, deviation: the printed accuracy in percent;
figures print none. nearest: of figure 2's K for one L, that nearest to the complementary condition. same_as: the row
with the same network and data set, which is trained instead. Figure 2 has 3000 parameters in a block and some of the K
of `design.py sweep --params 3000 --layers L`, figure 3 the blocks of `design.py sweep --params 4752`.
"""

import argparse
import csv
import difflib
import fnmatch
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from prototxt_gen.architecture import Options
from prototxt_gen.architectures import ARCHITECTURES
from prototxt_gen.command_line import Invalid, project_root
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.make_net import branches


@dataclass(frozen=True)
class Run:
    """A row of the catalogue. Its name is its folder under experiments/."""

    name: str
    arch: str
    width: int
    depth: int
    downsampling: bool
    K: str
    L: str
    dataset: str
    epochs: int
    seeds: int
    paper: float | None
    deviation: float | None
    nearest: bool
    same_as: str

    @property
    def table(self) -> str:
        """table4, figure2, ..."""
        return self.name.partition("/")[0]

    @property
    def trained(self) -> str:
        """Name of the run whose records count for this one."""
        return self.same_as or self.name

    @property
    def options(self) -> Options:
        uses = ARCHITECTURES[self.arch].uses if self.arch in ARCHITECTURES else ()
        return Options(
            width=self.width,
            depth=self.depth,
            # IGC-V2*: L follows from K
            layers=int(self.L) if "layers" in uses and "layers_from" not in uses else None,
            channels_per_branch=branches(self.K.replace(" ", ",")) if self.K else None,
            downsampling=self.downsampling,
        )

    def experiment(self, out: Path | None = None, epochs: float | None = None, **changes) -> Experiment:
        """For the generators: into experiments/<name> with the paper's epochs, unless given otherwise."""
        return Experiment(
            self.arch,
            self.options,
            self.dataset,
            epochs=epochs or self.epochs,
            out=out or project_root() / "experiments" / self.name,
            label=self.name.rpartition("/")[2],
            **changes,
        )


@functools.cache
def catalogue() -> dict[str, Run]:
    """All runs by name, in the paper's order."""
    with open(Path(__file__).with_name("catalogue.csv"), newline="") as file:
        rows = [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(file)]
    return {row["name"]: _run(row) for row in rows}


def _run(row: dict[str, str]) -> Run:
    counts = {key: int(row[key]) for key in ("width", "depth", "epochs", "seeds")}
    printed = {key: float(row[key]) if row[key] else None for key in ("paper", "deviation")}
    flags = {key: row[key] == "yes" for key in ("downsampling", "nearest")}
    return Run(**{**row, **counts, **printed, **flags})


def select(patterns: list[str]) -> list[Run]:
    """Runs by name or pattern ('table4/*'), each once.

    Raises Invalid for a name that is none, with the nearest ones.
    """
    runs = catalogue()
    found: dict[str, Run] = {}
    for pattern in patterns:
        names = fnmatch.filter(runs, pattern.removeprefix("experiments/").rstrip("/"))
        if not names:
            near = difflib.get_close_matches(pattern, runs, n=3, cutoff=0.4)
            raise Invalid(
                f"unknown run '{pattern}': "
                + (f"did you mean {' or '.join(near)}?" if near else "experiments/catalogue.csv lists them")
            )
        found |= {name: runs[name] for name in names}
    return list(found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the folders of the catalogue's runs.")
    parser.add_argument("names", nargs="*", default=["*"], metavar="NAME", help="such as 'table4/*' (default: all)")
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    args = parser.parse_args()
    try:
        runs = select(args.names)
        written = sum(bool(build(run.experiment()).write(args.force)) for run in tqdm(runs, unit="run", leave=False))
    except Invalid as error:
        sys.exit(f"error: {error}")
    print(f"{written} of {len(runs)} folders written: caffe train -solver experiments/{runs[0].name}/solver.prototxt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
