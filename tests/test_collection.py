"""pytest finds every test file: by itself it leaves out folders of some names, build among them."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def test_every_file_is_collected():
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet"]
    listing = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True)
    assert listing.returncode == 0, listing.stdout + listing.stderr
    files = {str(file.relative_to(TESTS.parent)) for file in TESTS.rglob("test_*.py")}
    assert files == {line.split("::")[0] for line in listing.stdout.splitlines() if "::" in line}
