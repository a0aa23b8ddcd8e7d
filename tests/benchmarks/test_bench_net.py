"""What bench_net.py reads and writes, on recorded results; the nets of its list in PyTorch, where that is installed."""

from pathlib import Path

import pytest

from benchmarks.bench_net import generate, read_nets
from benchmarks.bench_report import markdown, write_chart
from prototxt_gen.proto import read_net

NETS = read_nets(Path(__file__).resolve().parents[2] / "benchmarks/nets.txt")
RESULT = {
    "net": "net",
    "ms": {"ours": 50.0, "stock Caffe": 1500.0},
    "peak_mb": {"ours": 900.0, "stock Caffe": 3000.0},
    "layer_ms": {"ours": {"FusedBatchNorm": [1, 2]}, "stock Caffe": {"ReLU": [3, 4], "BatchNorm": [30, 40]}},
}


def test_table_and_chart(tmp_path):
    table = markdown([RESULT], 64).splitlines()
    assert "| net | ours | 50.0 | 1280 | 1.0 | 900 |" in table
    assert "| net | stock Caffe | 1500.0 | 43 | 30.0 | 3000 |" in table
    assert table[-3:] == [
        "| BatchNorm |  | 30.00 / 40.00 |",
        "| ReLU |  | 3.00 / 4.00 |",
        "| FusedBatchNorm | 1.00 / 2.00 |  |",
    ]
    write_chart([RESULT], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 1000


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
