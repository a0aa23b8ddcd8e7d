"""What bench_net.py reads and writes, on recorded results; the nets of its list in PyTorch, where that is installed."""

import json
from pathlib import Path

import pytest

from benchmarks import bench_net
from benchmarks.bench_net import generate, make_parser, read_nets, torch_steps
from benchmarks.bench_report import markdown, write_chart
from benchmarks.limits import Pass, Speeds, measure_speeds, step_passes
from prototxt_gen.proto import read_net

NETS = read_nets(Path(__file__).resolve().parents[2] / "benchmarks/nets.txt")
RESULT = {
    "net": "net",
    "ms": {"ours": 50.0, "stock Caffe": 1500.0},
    "peak_mb": {"ours": 900.0, "stock Caffe": 3000.0},
    "limits": {
        "gigabytes": 0.5,
        "gflop": 4.0,
        "copy_gb_s": 20.0,
        "product_gflop_s": 200.0,
        "limit_ms": 40.0,
    },
    "layer_ms": {"ours": {"FusedBatchNorm": [1, 2]}, "stock Caffe": {"ReLU": [3, 4], "BatchNorm": [30, 40]}},
}


def test_table_and_chart(tmp_path):
    table = markdown([RESULT], 64).splitlines()
    assert "| net | ours | 50.0 | 1280 | 1.0 | 900 |" in table
    assert "| net | stock Caffe | 1500.0 | 43 | 30.0 | 3000 |" in table
    assert "| net | 0.50 | 20.0 | 25 | 4.0 | 200 | 40 | 50 | 80% | 37.5 |  |" in table
    assert table[-3:] == [
        "| BatchNorm |  | 30.00 / 40.00 |",
        "| ReLU |  | 3.00 / 4.00 |",
        "| FusedBatchNorm | 1.00 / 2.00 |  |",
    ]
    others = [{**RESULT, "ms": {"ours": 50.0}}, {**RESULT, "ms": {"ours": 50.0, "stock Caffe": "crashed"}}]
    table = markdown(others, 64).splitlines()
    assert "| net | stock Caffe | crashed | | | |" in table
    assert "| net | 0.50 | 20.0 | 25 | 4.0 | 200 | 40 | 50 | 80% |  |  |" in table
    write_chart([RESULT, *others], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000


TWO_SKIPS = """
layer { name: "in" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
layer {
  name: "first" type: "Convolution" bottom: "x" top: "a"
  convolution_param { num_output: 6 kernel_size: 1 }
}
layer {
  name: "norm" type: "FusedBatchNorm" bottom: "a" top: "a"
  fused_batch_norm_param { relu: true relu_gradient: false }
}
layer {
  name: "second" type: "FusedGroupConvolution" bottom: "a" top: "b" top: "a_skip"
  fused_group_convolution_param { bottom_relu: true stage { num_output: 6 } }
}
layer {
  name: "sum" type: "FusedBatchNorm" bottom: "b" bottom: "a_skip" top: "c"
  fused_batch_norm_param { relu: true relu_gradient: false }
}
layer {
  name: "third" type: "FusedGroupConvolution" bottom: "c" top: "d" top: "c_skip"
  fused_group_convolution_param { bottom_relu: true stage { num_output: 6 } }
}
layer {
  name: "last" type: "FusedBatchNorm" bottom: "d" bottom: "c_skip" top: "d"
  fused_batch_norm_param { relu: true }
}
"""


def test_bytes_of_a_step(tmp_path):
    """Counted by hand: x has 120 values, every other blob 240."""
    (tmp_path / "net.prototxt").write_text(TWO_SKIPS)
    first = 120 + 240 + 240 + 120  # x, a; a's gradient, x
    norm = 240 + 240 + 240 + 240 + 240  # a, a; a's gradient, a, a's gradient
    second = 240 + 240 + 480 + 240 + 240  # a, b; the gradients of b and a_skip, a, a's gradient
    summed = 480 + 240 + 240 + 240 + 240  # b and a_skip, c; c's gradient, b, b's gradient
    third = second
    last = 480 + 240 + 240 + 480 + 480  # d and c_skip, d; d's gradient, d before and after, gradients of d and c_skip
    passes = step_passes(tmp_path / "net.prototxt")
    assert sum(one.bytes for one in passes) == 4 * (first + norm + second + summed + third + last)


def test_multiply_adds_of_a_step(tmp_path):
    """Counted by hand: 2 images of 20 pixels; what comes from data gets no gradient."""
    (tmp_path / "net.prototxt").write_text(TWO_SKIPS)
    first, other = 40 * 3 * 6, 40 * 6 * 6
    counted = [one.multiply_adds for one in step_passes(tmp_path / "net.prototxt")]
    assert counted == [first, first, 0, 0, other, 2 * other, 0, 0, other, 2 * other, 0, 0]


def test_a_pass_takes_the_longer_of_its_bytes_and_its_multiply_adds():
    passes = [Pass(20_000_000, 50_000_000), Pass(10_000_000, 100_000_000)]
    assert Speeds(copy=10.0, product=100.0).limit_ms(passes) == pytest.approx(2 + 2)


def test_speeds_of_this_machine():
    speeds = measure_speeds(threads=1, megabytes=1)
    assert speeds.copy > 0 and speeds.product > 0


def test_a_crash_of_pytorch_costs_its_own_times_only(tmp_path, capsys):
    args = make_parser().parse_args(["--steps", "1"])
    assert torch_steps(args, tmp_path / "missing.prototxt", "eager") == []
    assert "PyTorch eager failed on" in capsys.readouterr().err


def test_a_crash_of_pytorch_is_recorded(tmp_path, monkeypatch):
    """The contestants stand in for themselves: what they give is put together, written and read again."""
    for name, found in {
        "train_steps": ([5.0, 7.0, 6.0], 90.0),
        "torch_steps": [],
        "layer_times": {"ReLU": [1.0, 2.0]},
        "measure_speeds": Speeds(copy=20.0, product=200.0),
    }.items():
        monkeypatch.setattr(bench_net, name, lambda *_, found=found, **__: found)
    args = make_parser().parse_args(["--torch-modes", "compiled", "--threads", "1", "--out", str(tmp_path / "out")])
    result = bench_net.bench(args, "net", ["--arch", "igcv1", "--width", "16", "--depth", "8"], tmp_path)
    of = {"cpu": "CPU", "instructions": "AVX-512", "threads": 1, "commit": "a" * 40}
    bench_net.write_results([result | {"command": "python bench.py"}], of, args)
    record = json.loads((tmp_path / "out/net.json").read_text())
    assert record["results"][0]["ms"] == {"ours": 6.0, "stock Caffe": 6.0, "PyTorch compiled": "crashed"}
    lines = (tmp_path / "out/net.md").read_text().splitlines()
    assert "CPU, AVX-512, 1 threads, commit aaaaaaaaaa; `python bench.py`." in lines
    assert "| net | PyTorch compiled | crashed | | | |" in lines
    assert (tmp_path / "out/net.png").stat().st_size > 1000


def test_nets_that_the_same_code_was_timed_for_stay(tmp_path):
    of = {"cpu": "CPU", "instructions": "AVX2", "threads": 2, "commit": "a" * 40}

    def written(nets: str, of: dict, batch: int = 64) -> list[str]:
        args = make_parser().parse_args(["--batch-size", str(batch), "--out", str(tmp_path)])
        results = [{**RESULT, "net": net, "command": f"bench {nets}"} for net in nets]
        bench_net.write_results(results, of, args)
        assert f"`bench {nets}`." in (tmp_path / "net.md").read_text()
        return [result["net"] for result in json.loads((tmp_path / "net.json").read_text())["results"]]

    assert written("abc", of) == ["a", "b", "c"]
    assert written("b", of) == ["a", "c", "b"]
    assert written("b", of, batch=32) == ["b"]
    assert written("a", {**of, "commit": "b" * 40}, batch=32) == ["a"]


@pytest.mark.parametrize("name", NETS)
def test_pytorch_computes_every_net(name, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, a dependency of the benchmarks alone, is not installed")
    from benchmarks.torch_net import Net

    generate(name, NETS[name], tmp_path, batch=2)
    model = Net(read_net(tmp_path / name / "fused" / "train_val.prototxt"), channels=3)
    loss = model(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())
