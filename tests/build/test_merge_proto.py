"""merge_proto.py: what it merges, and what it refuses."""

import subprocess
import sys

import pytest

from tests.build.conftest import ROOT

sys.path.insert(0, str(ROOT / "cmake"))
from merge_proto import MergeError, merge  # noqa: E402

CAFFE = """syntax = "proto2";
package caffe;
// message LayerParameter { in a comment
message LayerParameter {
  optional string name = 1;  // } in a comment
  message Nested { optional int32 inside = 40; }
  optional int32 last = 148;
}
enum Phase { TRAIN = 0; }
"""


def ours(field: str = "optional FooParameter foo_param = 1801;", more: str = "") -> str:
    return f"message LayerParameter {{ {field} }}\nmessage FooParameter {{ optional int32 a = 1; }}\n{more}"


def test_fields_are_added_and_messages_appended(tmp_path):
    merged = merge(CAFFE, ours())
    (tmp_path / "merged.proto").write_text(merged)
    command = ["protoc", f"--proto_path={tmp_path}", "--decode=caffe.LayerParameter", "merged.proto"]
    given = 'name: "x"\nlast: 2\nfoo_param {\n  a: 3\n}\n'
    binary = subprocess.run(
        [*command[:2], "--encode=caffe.LayerParameter", "merged.proto"], input=given.encode(), capture_output=True
    )
    assert subprocess.run(command, input=binary.stdout, capture_output=True).stdout.decode() == given


def test_a_number_in_a_nested_message_is_free():
    assert "= 40;" in merge(CAFFE, ours("optional FooParameter foo_param = 40;"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ours("optional FooParameter foo_param = 148;"),
            r"foo_param = 148 of LayerParameter collides with Caffe's last",
        ),
        (ours("optional FooParameter last = 1801;"), "LayerParameter has a field last in Caffe already"),
        (ours(more="message Phase { optional int32 a = 1; }"), "Caffe has a enum Phase already"),
        (ours(more="message FooParameter { }"), "FooParameter is defined twice"),
        ("message LayerParameter {", "LayerParameter has no closing brace"),
    ],
)
def test_collisions_are_refused(text, message):
    with pytest.raises(MergeError, match=message):
        merge(CAFFE, text)


def test_the_command_writes_nothing_on_a_collision(tmp_path):
    (tmp_path / "caffe.proto").write_text(CAFFE)
    (tmp_path / "ours.proto").write_text(ours("optional FooParameter foo_param = 1;"))
    command = [sys.executable, ROOT / "cmake/merge_proto.py", "caffe.proto", "ours.proto", "-o", "merged.proto"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("merge_proto: ours.proto: field foo_param = 1")
    assert not (tmp_path / "merged.proto").exists()
