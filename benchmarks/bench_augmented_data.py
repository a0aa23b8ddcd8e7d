"""Images per second of the AugmentedData layer, beside what reading and decoding alone take.

Needs pycaffe (build/caffe/python) on PYTHONPATH, and the LMDBs named below. Images per CPU second are what one core
does; images per second are what the net would get if it did nothing else than ask for batches.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NORMALISATION = "mean: 113.9 mean: 123.0 mean: 125.3 std: 66.7 std: 62.1 std: 63.0"
CIFAR = "crop_size: 32 pad: 4 mirror: true"
TINY = "crop_size: 64 min_scale: 64 max_scale: 80 mirror: true"
BATCH = 64


def data_net(source: Path, fields: str, threads: int, phase: str = "TRAIN"):
    import caffe

    layer = (
        "layer { name: 'data' type: 'AugmentedData' top: 'data' top: 'label' augmented_data_param { "
        f"source: '{source}' batch_size: {BATCH} threads: {threads} {NORMALISATION} {fields} }} }}"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as prototxt:
        prototxt.write(layer)
        prototxt.flush()
        return caffe.Net(prototxt.name, getattr(caffe, phase))


def speed(net, seconds: float) -> tuple[float, float]:
    """(images per CPU second, images per second)."""
    for _ in range(20):  # the LMDB's pages and the prefetched batches
        net.forward()
    batches, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        net.forward()
        batches += 1
    return BATCH * batches / (time.process_time() - cpu), BATCH * batches / (time.perf_counter() - wall)


def report(name: str, net, seconds: float) -> None:
    per_core, per_second = speed(net, seconds)
    print(f"{name:58} {per_core:10,.0f} {per_second:10,.0f}", flush=True)


def wait_of_training(net, computing: float) -> tuple[float, float]:
    """Median and maximum of what the net waits for a batch, in microseconds, when it computes as long for each."""
    waits = []
    for _ in range(220):
        start = time.perf_counter()
        net.forward()
        waits.append(1e6 * (time.perf_counter() - start))
        time.sleep(computing)
    return statistics.median(waits[20:]), max(waits[20:])


def bench(title: str, source: Path, fields: str, threads: list[int], seconds: float) -> None:
    if not (source / "data.mdb").exists():
        print(f"{title}: left out, no {source}")
        return
    start = time.perf_counter()
    net = data_net(source, fields, 1)
    print(f"\n{title}: {source}, set up in {1e3 * (time.perf_counter() - start):.0f} ms")
    print(f"{'':58} {'per core':>10} {'per second':>10}")
    for count in threads:
        report(f"augmented, {count} thread(s)", data_net(source, fields, count), seconds)
    # A crop of one pixel leaves next to nothing but the reading and decoding.
    report("reading and decoding alone, 1 thread", data_net(source, "crop_size: 1 shuffle: false", 1), seconds)
    median, most = wait_of_training(net, 0.01)
    print(f"a net that computes 10 ms a batch waits {median:.0f} us for it (at most {most:.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, default=ROOT / "data/cifar10/train_lmdb", help="default: %(default)s")
    parser.add_argument(
        "--tiny", type=Path, default=ROOT / "data/tiny-imagenet/train_lmdb", help="default: %(default)s"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--seconds", type=float, default=3, help="for each measurement (default: 3)")
    options = parser.parse_args()
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        import caffe  # noqa: F401
    except ImportError:
        sys.exit("error: no pycaffe; add build/caffe/python to PYTHONPATH")
    bench(f"CIFAR ({CIFAR})", options.cifar, CIFAR, options.threads, options.seconds)
    bench(f"Tiny ImageNet ({TINY})", options.tiny, TINY, options.threads, options.seconds)


if __name__ == "__main__":
    main()
