import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_tool(tmp_path, monkeypatch, capsys):
    """Runs a command of prototxt_gen in an empty folder: returncode, stdout, stderr.

    In this process, since each process of its own would load Caffe; test_make_net.py has processes as users start them.
    """
    monkeypatch.chdir(tmp_path)

    def run(tool, *args):
        main = importlib.import_module(f"prototxt_gen.{tool}").main
        capsys.readouterr()
        try:
            status = main([str(arg) for arg in args]) or 0
        except SystemExit as stop:  # argparse
            status = stop.code
        output = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=output.out, stderr=output.err)

    return run
