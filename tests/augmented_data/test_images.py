"""The images that come out of AugmentedData against numpy, OpenCV and stock Caffe's Data layer."""

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

MEAN, STD = np.array([113.9, 123.0, 125.3]), np.array([66.7, 62.1, 63.0])
NORMALISATION = "".join(f"mean: {m} " for m in MEAN) + "".join(f"std: {s} " for s in STD)


def photos(count: int, height: int, width: int) -> np.ndarray:
    """Smooth colour images with some noise, count x 3 x height x width bytes."""
    random = np.random.default_rng(5)
    coarse = random.integers(0, 256, (count, 5, 5, 3)).astype(np.uint8)
    smooth = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in coarse])
    noisy = smooth.astype(int) + random.integers(-8, 9, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)


def normalised(images: np.ndarray) -> np.ndarray:
    return ((images - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float32)


def draw(net, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of some batches."""
    data, labels = [], []
    for _ in range(batches):
        net.forward()
        data.append(net.blobs["data"].data.copy())
        labels.append(net.blobs["label"].data.astype(int))
    return np.concatenate(data), np.concatenate(labels)


def windows(image: np.ndarray, side: int) -> np.ndarray:
    """Every window of a C x H x W image and its mirror image: rows x columns x 2 x C x side x side."""
    plain = sliding_window_view(image, (side, side), axis=(1, 2)).transpose(1, 2, 0, 3, 4)
    return np.stack([plain, plain[..., ::-1]], axis=2)


def assert_uniform(counts: np.ndarray) -> None:
    """Pearson's test; a uniform choice fails it once in about 10^5."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 4.5 * np.sqrt(2 * freedom) + 12


@pytest.mark.parametrize("mode", ["NORMALIZED_ZERO", "BLACK"])
def test_padded_crops_and_flips(tmp_path, write_lmdb, data_net, mode):
    """Each image is one of the 81 crops of its padded original, plain or mirrored; corners and flips are uniform."""
    images = photos(100, 16, 16)
    source = write_lmdb(tmp_path / "lmdb", images, range(100))
    data, labels = draw(
        data_net(source, f"batch_size: 100 crop_size: 16 pad: 4 mirror: true pad_mode: {mode} {NORMALISATION}"), 60
    )
    padding = [(0, 0), (0, 0), (4, 4), (4, 4)]
    if mode == "BLACK":
        padded = normalised(np.pad(images, padding))
    else:
        padded = np.pad(normalised(images), padding)
    counts = np.zeros((9, 9, 2), int)
    for label in range(100):
        candidates = windows(padded[label], 16)
        for image in data[labels == label]:
            (place,) = np.argwhere((np.abs(candidates - image) < 1e-5).all(axis=(3, 4, 5)))
            counts[tuple(place)] += 1
    assert counts.sum() == 6000
    assert_uniform(counts)


@pytest.mark.parametrize("stored", ["raw", "png", "jpg"])
def test_scaled_crops(tmp_path, write_lmdb, data_net, stored):
    """Each image is a crop of its original as OpenCV scales it to one of the sizes; sizes are uniform."""
    smallest, largest, side = 20, 26, 20
    images = photos(30, 24, 24)
    records = images
    if stored != "raw":
        records = [cv2.imencode(f".{stored}", image.transpose(1, 2, 0))[1].tobytes() for image in images]
        decoded = [cv2.imdecode(np.frombuffer(record, np.uint8), cv2.IMREAD_COLOR) for record in records]
        images = np.stack(decoded).transpose(0, 3, 1, 2)
    source = write_lmdb(tmp_path / "lmdb", records, range(30))
    net = data_net(source, f"batch_size: 30 crop_size: {side} min_scale: {smallest} max_scale: {largest} mirror: true")
    data, labels = draw(net, 30)
    counts = np.zeros(largest - smallest + 1, int)
    for label in range(30):
        scaled = [cv2.resize(images[label].transpose(1, 2, 0), (size, size)) for size in range(smallest, largest + 1)]
        candidates = [windows(image.transpose(2, 0, 1).astype(np.float32), side) for image in scaled]
        for image in data[labels == label]:
            # OpenCV's versions round the interpolation differently by one gray value.
            errors = [np.abs(c - image).max(axis=(3, 4, 5)).min() for c in candidates]
            assert min(errors) <= 1
            counts[int(np.argmin(errors))] += 1
    assert_uniform(counts)


def test_mean_and_variance_of_the_stream(tmp_path, write_lmdb, data_net):
    """Flips alone keep mean 0 and variance 1; padding changes both as the mean over all crops says."""
    images = photos(200, 16, 16)
    source = write_lmdb(tmp_path / "lmdb", images, range(200))
    mean, std = images.mean(axis=(0, 2, 3)), images.std(axis=(0, 2, 3))
    own = "".join(f"mean: {m} " for m in mean) + "".join(f"std: {s} " for s in std)
    flipped, _ = draw(data_net(source, f"batch_size: 50 mirror: true {own}"), 4)  # one epoch
    np.testing.assert_allclose(flipped.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(flipped.var(axis=(0, 2, 3)), 1, atol=1e-5)

    cropped, _ = draw(data_net(source, f"batch_size: 50 crop_size: 16 pad: 4 mirror: true {own}"), 200)
    padded = np.pad((images - mean[:, None, None]) / std[:, None, None], [(0, 0), (0, 0), (4, 4), (4, 4)])
    crops = sliding_window_view(padded, (16, 16), axis=(2, 3))
    for moment in (1, 2):
        per_crop = (crops**moment).mean(axis=(4, 5))  # images x 3 x 9 x 9
        expected = per_crop.mean(axis=(0, 2, 3))
        error = per_crop.std(axis=(2, 3)).mean(axis=0) / np.sqrt(len(cropped))
        measured = (cropped.astype(float) ** moment).mean(axis=(0, 2, 3))
        assert (np.abs(measured - expected) < 5 * error).all()


def test_an_epoch_has_every_image_once(tmp_path, write_lmdb, data_net):
    source = write_lmdb(tmp_path / "lmdb", photos(70, 8, 8), range(70))
    _, labels = draw(data_net(source, "batch_size: 16 threads: 3"), 35)  # 8 epochs
    epochs = labels.reshape(8, 70)
    assert (np.sort(epochs, axis=1) == np.arange(70)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 8


@pytest.mark.parametrize("stored", ["raw", "jpg", "gray"])
def test_test_phase_is_that_of_the_stock_data_layer(tmp_path, write_lmdb, data_net, stored):
    """Same images in the same order as Data with mean_value and crop_size, which has no standard deviation."""
    import caffe

    images = photos(10, 21, 20)
    records = images[:, :1] if stored == "gray" else images
    if stored == "jpg":
        records = [cv2.imencode(".jpg", image.transpose(1, 2, 0))[1].tobytes() for image in images]
    source = write_lmdb(tmp_path / "lmdb", records, range(10))
    means = MEAN[:1] if stored == "gray" else MEAN
    prototxt = tmp_path / "stock.prototxt"
    prototxt.write_text(
        "layer { name: 'data' type: 'Data' top: 'data' top: 'label' "
        f"data_param {{ source: '{source}' batch_size: 4 backend: LMDB }} "
        f"transform_param {{ crop_size: 16 {''.join(f'mean_value: {m} ' for m in means)} }} }}"
    )
    expected, expected_labels = draw(caffe.Net(str(prototxt), caffe.TEST), 5)
    ours = data_net(source, f"batch_size: 4 crop_size: 16 {''.join(f'mean: {m} ' for m in means)}", "TEST")
    data, labels = draw(ours, 5)
    assert (labels == expected_labels).all()
    assert (data == expected).all()


def test_ranks_share_each_epoch(tmp_path, write_lmdb, data_net):
    """With solver_count and solver_rank, as MPI's users set them: together, every image once an epoch."""
    import caffe

    source = write_lmdb(tmp_path / "lmdb", photos(70, 8, 8), range(70))
    caffe.set_solver_count(2)
    try:
        nets = []
        for rank in range(2):
            caffe.set_solver_rank(rank)
            nets.append(data_net(source, "batch_size: 5"))
        labels = np.concatenate([np.concatenate([draw(net, 1)[1] for net in nets]) for _ in range(21)])
    finally:
        caffe.set_solver_count(1)
        caffe.set_solver_rank(0)
    assert (np.sort(labels.reshape(3, 70), axis=1) == np.arange(70)).all()
