"""What the commands share: one-line errors, and where the project's root is."""

import argparse
import difflib
import functools
import sys
from pathlib import Path


class Invalid(ValueError):
    """A value that cannot work. The message is one line that says what would."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def command(main):
    """Ends a command that met an Invalid value with its line on stderr and status 2."""

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(argv)
        except Invalid as error:
            print(
                f"{main.__module__.rpartition('.')[2].replace('__main__', Path(sys.argv[0]).stem)}: error: {error}",
                file=sys.stderr,
            )
            return 2

    return run


def unknown(kind: str, name: str, names) -> Invalid:
    """An error for a name that is not one of `names`, nearest ones first."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return Invalid(f"unknown {kind} '{name}': {hint}there are {', '.join(names)}")


def project_root() -> Path:
    """The clone this file lies in; the current folder when the package is installed."""
    clone = Path(__file__).resolve().parents[1]
    return clone if (clone / "caffe_layers").is_dir() else Path.cwd()
