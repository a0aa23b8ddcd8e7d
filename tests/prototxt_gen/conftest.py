import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_tool(tmp_path):
    """Runs a command of prototxt_gen/ from the clone, in another folder."""

    def run(tool, *args, cwd=tmp_path):
        return subprocess.run(
            [sys.executable, ROOT / "prototxt_gen" / f"{tool}.py", *map(str, args)],
            cwd=cwd,
            check=False,
            capture_output=True,
            text=True,
        )

    return run
