"""The documents: links lead somewhere, and prototxt examples are prototxt."""

import re
from pathlib import Path

import pytest
from google.protobuf import text_format

from prototxt_gen.proto import pb

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (".", "caffe_layers", "docs", "docs/layers", "experiments/results")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(document) -> str:
    return BLOCK.sub("", document.read_text())


def anchors(document) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    links = [link for link in LINK.findall(prose(document)) if "://" not in link]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target}"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_prototxt_examples_are_prototxt(document):
    examples = [block for block in BLOCK.findall(document.read_text()) if block.startswith("layer {")]
    for example in examples:
        net = text_format.Parse(example, pb.NetParameter())
        assert all(layer.name and layer.type for layer in net.layer)


def test_there_is_something_to_look_at():
    texts = [document.read_text() for document in DOCUMENTS]
    assert sum(len(LINK.findall(text)) for text in texts) > 100
    assert sum(text.count("```\nlayer {") for text in texts) >= 6
