"""`python setup.py install`, for those used to it, runs `pip install .` (scikit-build-core, see pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

COMMANDS = {"install": ["install", "."], "bdist_wheel": ["wheel", "--no-deps", "--wheel-dir", "dist", "."]}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python setup.py {{{','.join(COMMANDS)}}}, or better: pip install .")
    here = Path(__file__).resolve().parent
    sys.exit(subprocess.call([sys.executable, "-m", "pip", *COMMANDS[sys.argv[1]]], cwd=here))
