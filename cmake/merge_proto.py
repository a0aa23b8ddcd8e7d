"""Merge our parameter messages into Caffe's caffe.proto.

The fields of a message that Caffe has too (LayerParameter) are added to Caffe's; every other message or enum is
appended. A field number, field name or message name that is taken already is an error, and nothing is written.

    python cmake/merge_proto.py caffe.proto caffe_layers.proto -o merged.proto
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

_FIELD = re.compile(r"^\s*(?:optional|required|repeated)\s+[\w.]+\s+(\w+)\s*=\s*(\d+)", re.MULTILINE)
_DEFINITION = re.compile(r"^(message|enum)\s+(\w+)\s*\{", re.MULTILINE)


class MergeError(Exception):
    """The two files cannot be merged; the message says why."""


@dataclass
class Definition:
    """A top-level message or enum: text[start:end], of which text[body:end - 1] lies between its braces."""

    kind: str
    name: str
    start: int
    body: int
    end: int


def blank_comments(text: str) -> str:
    """The text with comments overwritten by spaces, so that positions stay the same."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL)


def parse(text: str, path: str) -> dict[str, Definition]:
    """The top-level definitions of a .proto file by name."""
    code = blank_comments(text)
    found: dict[str, Definition] = {}
    for match in _DEFINITION.finditer(code):
        depth, end = 1, match.end()
        while depth:
            if end == len(code):
                raise MergeError(f"{path}: {match[1]} {match[2]} has no closing brace")
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        if match[2] in found:
            raise MergeError(f"{path}: {match[2]} is defined twice")
        found[match[2]] = Definition(match[1], match[2], match.start(), match.end(), end)
    return found


def fields(text: str, definition: Definition) -> dict[int, str]:
    """Number -> name of the message's own fields (those of nested messages left out)."""
    body = blank_comments(text)[definition.body : definition.end - 1]
    while "{" in body:
        body = re.sub(r"\{[^{}]*\}", "", body)
    return {int(number): name for name, number in _FIELD.findall(body)}


def check_fields(message: str, theirs: dict[int, str], ours: dict[int, str], path: str) -> None:
    """Raise MergeError when a field of ours has a number or a name that Caffe's message uses."""
    for number, name in ours.items():
        if number in theirs:
            raise MergeError(
                f"{path}: field {name} = {number} of {message} collides with Caffe's {theirs[number]} = {number}; "
                f"choose another number (Caffe uses up to {max(theirs)})"
            )
        if name in theirs.values():
            raise MergeError(f"{path}: {message} has a field {name} in Caffe already; choose another name")


def merge(caffe: str, ours: str, caffe_path: str = "caffe.proto", our_path: str = "caffe_layers.proto") -> str:
    """The text of caffe.proto with our definitions in it."""
    theirs, mine = parse(caffe, caffe_path), parse(ours, our_path)
    appended = [ours[d.start : d.end] for d in mine.values() if d.name not in theirs]
    merged = caffe
    # From the end of the file backwards, so that positions found before stay valid.
    for definition in sorted((d for d in mine.values() if d.name in theirs), key=lambda d: -theirs[d.name].start):
        name, target = definition.name, theirs[definition.name]
        if (definition.kind, target.kind) != ("message", "message") or not fields(ours, definition):
            raise MergeError(f"{our_path}: Caffe has a {target.kind} {name} already; choose another name")
        check_fields(name, fields(caffe, target), fields(ours, definition), our_path)
        at = target.end - 1
        merged = merged[:at] + ours[definition.body : definition.end - 1] + merged[at:]
    return merged.rstrip() + "\n\n" + "\n\n".join(appended) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("caffe", type=Path, help="Caffe's caffe.proto")
    parser.add_argument("ours", type=Path, help="our messages")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        merged = merge(args.caffe.read_text(), args.ours.read_text(), str(args.caffe), str(args.ours))
    except (MergeError, OSError) as error:
        sys.exit(f"merge_proto: {error}")
    args.output.write_text(merged)


if __name__ == "__main__":
    main()
