"""bench_gpu.py from end to end on the CPU, with stand-ins for our programs, and its tables from a recorded result."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks import bench_gpu
from benchmarks.gpu_report import markdown
from prototxt_gen.proto import read_net

RECORD = {
    "machine": {"gpu": "GPU X", "driver": "1.2", "memory": "80 GB", "commit": "abc"},
    "results": {
        "blocks / ours": [{"net": "block1", "forward": 0.03, "backward": 0.07, "copy": 0.02, "bytes": 40_000_000}],
        "blocks / PyTorch eager": [{"net": "block1", "forward": 0.3, "backward": 0.7}],
        "blocks / PyTorch graphs": {"error": "out of memory"},
        "steps / net_d20_64 / ours": {"ms": 2.0, "median": 2.1},
        "steps / net_d20_64 / PyTorch eager": {"ms": 9.0},
    },
}


def test_tables():
    text = markdown(RECORD)
    assert "GPU X, 80 GB, 1.2; float32 without TF32, commit abc" in text
    assert "| net_d20 | 64 | ours | 2.000 | 32000 | 1.00 |" in text
    assert "| net_d20 | 64 | PyTorch eager | 9.000 | 7111 | 4.50 |" in text
    assert "| block1 | 0.0200 | 2000 | 0.0300 / 0.0700 | 1.50 | 0.3000 / 0.7000 |" in text
    assert "- blocks / PyTorch graphs: out of memory" in text


def test_without_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench_gpu.main(["run", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        "bench_gpu: error: no GPU on this machine (nvidia-smi finds none), so nothing is measured\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench_gpu") / "prepared"
    assert bench_gpu.main(["prepare", str(folder), "--batches", "2"]) == 0
    return folder


def test_what_is_prepared_can_be_moved(prepared):
    assert str(prepared) not in (prepared / "igcv1_c48_d20_2/fused/train_val.prototxt").read_text()
    net = read_net(prepared / "igcv1_c48_d20_2/fused/constant.prototxt")
    assert [layer.type for layer in net.layer].count("AugmentedData") == 0
    assert net.layer[0].dummy_data_param.shape[0].dim == [2, 3, 32, 32]
    block = read_net(prepared / "blocks/igcv2-c64-stage1.prototxt")
    assert [layer.type for layer in block.layer] == ["Input", "FusedGroupConvolution"]


def test_below_the_project_it_can_be_moved_too():
    """There the generators write paths relative to the project."""
    with TemporaryDirectory(dir=bench_gpu.ROOT) as below:
        folder = Path(below) / "prepared"
        assert bench_gpu.main(["prepare", str(folder), "--batches", "2"]) == 0
        for file in (folder / "igcv1_c48_d20_2/fused").glob("*.prototxt"):
            assert folder.parent.name not in file.read_text(), file.name


def test_the_commit_travels_with_what_is_prepared(prepared, tmp_path, monkeypatch):
    here = bench_gpu.machine("cpu", tmp_path)["commit"]
    monkeypatch.setattr(bench_gpu, "ROOT", tmp_path)  # no repository
    monkeypatch.setattr(bench_gpu, "commit", lambda: "another")
    assert bench_gpu.machine("cpu", prepared)["commit"] == here


def write_program(path: Path, body: str):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\n{body}")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path) -> Path:
    """time_nets and caffe that note how they are called and print what the real ones would."""
    folder = tmp_path / "programs"
    calls = folder / "calls.txt"
    note = f"open({str(calls)!r}, 'a').write(' '.join(sys.argv) + chr(10))\n"
    line = '{"net": "%s", "forward": 1, "backward": 2, "copy": 1, "bytes": 8}'
    write_program(folder / "time_nets", note + f"for net in sys.argv[3:]:\n    print({line!r} % Path(net).stem)\n")
    write_program(
        folder / "caffe",
        note
        + "assert Path(sys.argv[3]).exists()\n"
        + "for n, s in ((0, 9), (5, 8), (10, 0.02), (15, 0.01), (20, 0.03), (25, 0.05)):\n"
        + "    print(f'Iteration {n} (1 iter/s, {s}s/5 iters), loss = 1', file=sys.stderr)\n",
    )
    return folder


def test_runs_and_goes_on(prepared, programs, tmp_path):
    out = tmp_path / "out"
    command = ["run", str(prepared), "--device", "cpu", "--programs", str(programs), "--out", str(out), "--steps", "5"]
    command += ["--batches", "2", "--nets", "igcv1_c48_d20", "--blocks", "igcv1-c48-stage1"]
    command += ["--block-modes", "--step-modes"]
    assert bench_gpu.main(command) == 0
    results = json.loads((out / "gpu_dry_run.json").read_text())["results"]
    assert results["blocks / ours"][0]["net"] == "igcv1-c48-stage1"
    assert results["steps / igcv1_c48_d20_2 / ours"] == {"ms": 2, "median": 6}  # of 4, 2, 6, 10 ms a step
    calls = (programs / "calls.txt").read_text().splitlines()
    assert len(calls) == 1 + len(bench_gpu.OURS)
    (programs / "caffe").write_text("#!/bin/sh\nexit 7\n")
    assert bench_gpu.main([*command, "--batches", "2", "3"]) == 0  # 3 was not prepared, and caffe is broken
    after = json.loads((out / "gpu_dry_run.json").read_text())["results"]
    assert after["steps / igcv1_c48_d20_2 / ours"] == {"ms": 2, "median": 6}, "is kept"
    assert "error" in after["steps / igcv1_c48_d20_3 / ours"]
    assert "What did not run" in (out / "gpu_dry_run.md").read_text()


@pytest.mark.parametrize("mode", ["eager", "channels_last"])
def test_pytorchs_side(prepared, mode):
    torch = pytest.importorskip("torch", reason="PyTorch, a dependency of the benchmarks alone, is not installed")
    from benchmarks.torch_gpu import time_block, time_step

    torch.manual_seed(1)
    block = time_block(prepared / "blocks/edge-1x1-8x8.prototxt", mode, "cpu", 0.001)
    assert block["net"] == "edge-1x1-8x8" and block["forward"] > 0
    step = time_step(prepared / "igcv1_c48_d20_2/fused/train_val.prototxt", mode, "cpu", 2, 0.001)
    assert step["ms"] > 0
