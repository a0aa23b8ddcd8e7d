"""What bench_inference.py writes, on recorded results; and that all contestants compute the same, on one small net."""

import importlib.util
import json
import subprocess
from types import SimpleNamespace

import numpy as np

from benchmarks import bench_inference
from benchmarks.bench_data import write_images
from benchmarks.bench_inference import contestants, prepare, run, write_results
from benchmarks.bench_report import inference_markdown


def test_table():
    result = {
        "net": "net",
        "batch": 64,
        "ms": {"ours": 50.0, "ONNX Runtime": 75.0},
        "layer_ms": {"ours": {"FusedGroupConvolution": [40.0]}, "stock Caffe": {"ReLU": [3.0], "Convolution": [90.0]}},
        "command": "python bench.py net",
    }
    of = {"cpu": "CPU", "instructions": "AVX2", "threads": 2, "commit": "abc"}
    lines = inference_markdown([result, result, {**result, "command": "python bench.py all"}], of).splitlines()
    assert "CPU, AVX2, 2 threads, commit abc; `python bench.py net`, `python bench.py all`. " in lines[2]
    assert "| net | 64 | ours | 50.00 | 1280 | 1.00 |" in lines
    assert "| net | 64 | ONNX Runtime | 75.00 | 853 | 1.50 |" in lines
    assert lines[-3:] == ["| Convolution |  | 90.00 |", "| FusedGroupConvolution | 40.00 |  |", "| ReLU |  | 3.00 |"]


def test_results_of_one_commit_add_up(tmp_path):
    def result(net, batch, ms):
        return {"net": net, "batch": batch, "ms": {"ours": ms}, "layer_ms": {}, "command": f"bench {net}"}

    here = {"cpu": "CPU", "instructions": "AVX2", "threads": 2, "commit": "abc"}
    write_results([result("a", 1, 1.0), result("a", 64, 2.0)], here, tmp_path)
    write_results([result("a", 64, 3.0), result("b", 1, 4.0)], here, tmp_path)
    assert [one["ms"]["ours"] for one in json.loads((tmp_path / "inference.json").read_text())["results"]] == [1, 3, 4]
    assert (tmp_path / "inference.png").stat().st_size > 1000
    write_results([result("b", 1, 5.0)], {**here, "commit": "abd"}, tmp_path)
    assert (tmp_path / "inference.md").read_text().count("| ours |") == 1


def test_a_crash_of_pytorch_is_recorded(tmp_path, monkeypatch, capsys):
    """The contestants stand in for themselves."""
    (tmp_path / "net").mkdir()
    for engine in ("ours", "stock"):
        (tmp_path / f"net/{engine}.prototxt").write_text("layer { type: 'Input' input_param { shape { dim: 1 } } }")

    def run(arguments, batch, args):
        if arguments[0] == "torch":
            raise subprocess.CalledProcessError(-11, "python")
        return {"ms": [2.0, 4.0, 3.0], "output": [1.0]}

    monkeypatch.setattr(bench_inference, "run", run)
    monkeypatch.setattr(bench_inference, "layer_times", lambda *_: {"ReLU": [1.0, 2.0]})
    args = bench_inference.make_parser().parse_args(["--torch-modes", "eager"])
    result = bench_inference.bench(args, "net", tmp_path / "net", 64)
    assert result["ms"] == {"ours": 3.0, "ONNX Runtime": 3.0, "stock Caffe": 3.0, "PyTorch eager": "crashed"}
    assert "warning: PyTorch eager failed on net" in capsys.readouterr().err
    assert "| net | 64 | PyTorch eager | crashed |  |  |" in inference_markdown([result]).splitlines()


def test_contestants_compute_the_same(tmp_path):
    write_images(tmp_path / "data" / "cifar10")
    prepare("net", ["--arch", "igcv2star", "--width", "24", "--depth", "8"], tmp_path)
    modes = ["eager", "channels_last"] if importlib.util.find_spec("torch") else []
    args = SimpleNamespace(seconds=0.01, threads=1)
    results = {title: run(arguments, 2, args) for title, arguments in contestants(tmp_path / "net", modes).items()}
    assert {"ours", "ONNX Runtime", "stock Caffe"} <= results.keys()
    for title, result in results.items():
        assert len(result["ms"]) >= 3 and min(result["ms"]) > 0
        np.testing.assert_allclose(result["output"], results["ours"]["output"], atol=1e-5, err_msg=title)
    assert np.isclose(sum(results["ours"]["output"]), 1, atol=1e-5) and np.ptp(results["ours"]["output"]) > 1e-3
