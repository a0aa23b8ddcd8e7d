"""CIFAR on small stand-ins in every layout and archive, where each kind of damage is one clear message."""

import io
import json
import pickle
import re
import tarfile
import zipfile

import numpy as np
import pytest
from commands import fails, read_split

from data_prep import cifar
from data_prep.cifar_files import LAYOUTS

COUNT = 60  # images in each stand-in file
NAMES = {
    "": [f"c{i}" for i in range(10)],
    "fine_": [f"f{i}" for i in range(100)],
    "coarse_": [f"s{i}" for i in range(20)],
}
BATCHES = [f"data_batch_{batch}" for batch in range(1, 6)]


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """The commands expect COUNT images in a file instead of 10,000 or 50,000."""
    for layouts in LAYOUTS.values():
        for layout in layouts:
            for file in layout.images:
                monkeypatch.setitem(layout.images, file, COUNT if "cifar-10-" in layout.archive else 2 * COUNT)


class Python2Pickler(pickle._Pickler):
    """Writes strings and bytes as CPython 2 did, which pickle.dumps of Python 3 cannot."""

    def save_string(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string, str: save_string}


def python2_pickle(content: dict) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def images_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(folder, version):
    """Returns (images (300, 3072) RGB, labels (300,)) of the training files written."""
    folder.mkdir(parents=True)
    everything = []
    for seed, batch in enumerate([*BATCHES, "test_batch"]):
        images, labels = images_of(seed, COUNT), np.arange(COUNT, dtype=np.uint8) % 10
        everything.append((images, labels))
        if version == "binary":
            (folder / f"{batch}.bin").write_bytes(np.concatenate([labels[:, None], images], 1).tobytes())
        else:
            (folder / batch).write_bytes(python2_pickle({"labels": labels.tolist(), "data": images}))
    if version == "binary":
        (folder / "batches.meta.txt").write_text("\n".join(NAMES[""]) + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(python2_pickle({"label_names": NAMES[""]}))
    images, labels = zip(*everything[:5], strict=True)
    return np.concatenate(images), np.concatenate(labels)


def write_cifar100(folder, version):
    """Returns (images (120, 3072) RGB, {kind: labels (120,)}) of the training file written."""
    folder.mkdir(parents=True)
    for seed, split in enumerate(("test", "train")):
        images, fine = images_of(seed, 2 * COUNT), np.arange(2 * COUNT, dtype=np.uint8) % 100
        coarse = fine % 20
        if version == "binary":
            (folder / f"{split}.bin").write_bytes(np.concatenate([coarse[:, None], fine[:, None], images], 1).tobytes())
        else:
            content = {"fine_labels": fine.tolist(), "coarse_labels": coarse.tolist(), "data": images}
            (folder / split).write_bytes(python2_pickle(content))
    for kind in ("fine_", "coarse_"):
        if version == "binary":
            (folder / f"{kind}label_names.txt").write_text("\n".join(NAMES[kind]))
    if version == "python":
        names = {f"{kind}label_names": NAMES[kind] for kind in ("fine_", "coarse_")}
        (folder / "meta").write_bytes(python2_pickle(names))
    return images, {"fine": fine, "coarse": coarse}


def pack(folder, archive):
    """`archive`'s name says which kind."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            for file in folder.iterdir():
                zipped.write(file, f"{folder.name}/{file.name}")
    else:
        mode = f"w:{archive.suffix[1:]}" if archive.suffix != ".tar" else "w"
        with tarfile.open(archive, mode) as tar:
            tar.add(folder, folder.name)
    return archive


def prepare(dataset, source, out, *options):
    arguments = ["--dataset", dataset, "--source", str(source), "--out", str(out), "--no-checksum", *options]
    assert cifar.main(arguments) == 0
    return json.loads((out / "dataset.json").read_text())


def check(lmdb, images, labels):
    """The records are the originals, in BGR, in another order, each under its own place."""
    names, pixels, found = read_split(lmdb)
    index = np.array([int(name.removeprefix("train/")) for name in names])
    assert sorted(index) == list(range(len(labels))) and not np.array_equal(index, range(len(labels)))
    assert np.array_equal(pixels, images[index].reshape(-1, 3, 32, 32)[:, ::-1])
    assert np.array_equal(found, labels[index])


@pytest.mark.parametrize("form", ["folder", "parent folder", "c.tar", "c.tar.gz", "c.tar.xz", "c.tar.bz2", "c.zip"])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar10_from_every_form(tmp_path, version, form):
    folder = tmp_path / "distribution" / f"cifar-10-{version}"
    images, labels = write_cifar10(folder, version)
    source = {"folder": folder, "parent folder": folder.parent}.get(form) or pack(folder, tmp_path / form)
    description = prepare("cifar10", source, tmp_path / "out")
    check(tmp_path / "out/train_lmdb", images, labels)
    assert description["classes"] == NAMES[""] and description["num_classes"] == 10
    assert description["train"] == {"records": 300, "per_class": [30] * 10}
    assert description["test"] == {"records": 60, "per_class": [6] * 10}
    assert description["image"] == {"channels": 3, "height": 32, "width": 32}
    bgr = images.reshape(-1, 3, 1024)[:, ::-1].astype(float)
    np.testing.assert_allclose(description["mean"], bgr.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(description["std"], bgr.std((0, 2)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["fine", "coarse"])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_labels(tmp_path, version, kind):
    images, labels = write_cifar100(tmp_path / "c", version)
    description = prepare("cifar100", tmp_path / "c", tmp_path / "out", "--labels", kind)
    check(tmp_path / "out/train_lmdb", images, labels[kind])
    assert description["classes"] == NAMES[f"{kind}_"]


def test_seed_decides_the_order(tmp_path):
    write_cifar10(tmp_path / "c", "binary")
    for out, seed in (("a", "1"), ("b", "1"), ("c2", "2")):
        prepare("cifar10", tmp_path / "c", tmp_path / out, "--seed", seed)
    files = [(tmp_path / out / "train_lmdb/data.mdb").read_bytes() for out in ("a", "b", "c2")]
    assert files[0] == files[1] != files[2]


def test_truncated_archive(tmp_path, capfd):
    write_cifar10(tmp_path / "cifar-10-batches-bin", "binary")
    for name in ("c.tar.gz", "c.tar.xz", "c.tar.bz2", "c.zip", "c.tar"):
        archive = pack(tmp_path / "cifar-10-batches-bin", tmp_path / name)
        whole = archive.read_bytes()
        for share in (0.01, 0.5, 0.98):
            archive.write_bytes(whole[: int(share * len(whole))])
            error = fails(capfd, cifar.main, "--dataset", "cifar10", "--source", archive, "--out", tmp_path / "out")
            assert str(archive) in error and re.search("truncated|no archive|holds no cifar10|is missing", error)
            assert not (tmp_path / "out").exists()


def rewrite(name, change):
    """Damage that replaces the content of one file."""

    def damage(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("version", "damage", "message"),
    [
        (
            "binary",
            rewrite("data_batch_3.bin", lambda data: data[:-1]),
            r"data_batch_3.bin: 184379 bytes instead of 184380",
        ),
        ("binary", rewrite("data_batch_3.bin", lambda data: data[:-3073]), "181307 bytes instead of 184380"),
        ("binary", rewrite("data_batch_3.bin", lambda data: data * 2), "368760 bytes instead of 184380"),
        (
            "binary",
            rewrite("data_batch_1.bin", lambda data: b"\x0a" + data[1:]),
            "train/0: label 10, but labels are 0 to 9",
        ),
        ("binary", rewrite("batches.meta.txt", lambda data: data[:10]), "4 class names instead of 10"),
        ("binary", rewrite("batches.meta.txt", lambda data: b"\xe9\n" + data), "meta.txt is no text in UTF-8"),
        ("python", rewrite("batches.meta", lambda _: python2_pickle({"label_names": 3})), "class names are no text"),
        ("binary", lambda folder: (folder / "test_batch.bin").unlink(), "test_batch.bin is missing"),
        (
            "binary",
            lambda folder: (folder / "data_batch_1.bin").unlink(),
            "holds no cifar10: neither data_batch_1.bin nor",
        ),
        (
            "binary",
            rewrite("test_batch.bin", lambda data: COUNT * data[:3073]),
            "test images lack 9 of 10 classes, first 'c1'",
        ),
        ("python", rewrite("data_batch_2", lambda data: data[:-100]), "data_batch_2: no CIFAR pickle .* or truncated"),
        (
            "python",
            rewrite("data_batch_2", lambda _: python2_pickle({"labels": [1], "data": images_of(0, 1)})),
            "1 labels and",
        ),
        (
            "python",
            rewrite("test_batch", lambda _: pickle.dumps(print)),
            "test_batch: no CIFAR pickle .*refused builtins.print",
        ),
    ],
)
def test_damage_is_one_clear_message(tmp_path, capfd, version, damage, message):
    write_cifar10(tmp_path / "c", version)
    damage(tmp_path / "c")
    options = ["--dataset", "cifar10", "--source", tmp_path / "c", "--out", tmp_path / "data/out", "--no-checksum"]
    assert re.search(message, fails(capfd, cifar.main, *options))
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(("version", "file"), [("binary", "data_batch_1.bin"), ("python", "data_batch_1")])
def test_wrong_checksum(tmp_path, capfd, version, file):
    write_cifar10(tmp_path / "c", version)
    error = fails(capfd, cifar.main, "--dataset", "cifar10", "--source", tmp_path / "c", "--out", tmp_path / "out")
    assert f"{tmp_path}/c/{file}: wrong checksum" in error and "--no-checksum" in error
    assert not (tmp_path / "out").exists()


def test_pickle_runs_no_code(tmp_path, capfd):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    write_cifar10(tmp_path / "c", "python")
    (tmp_path / "c/data_batch_1").write_bytes(pickle.dumps({"data": Attack()}, protocol=2))
    options = ["--dataset", "cifar10", "--source", tmp_path / "c", "--out", tmp_path / "out", "--no-checksum"]
    assert "refused" in fails(capfd, cifar.main, *options)
    assert not (tmp_path / "owned").exists()


def test_no_such_source(tmp_path, capfd):
    error = fails(capfd, cifar.main, "--dataset", "cifar10", "--source", tmp_path / "none", "--out", tmp_path / "out")
    assert error == f"{tmp_path}/none: no such file or folder"


def test_option_of_the_other_dataset(capsys):
    with pytest.raises(SystemExit):
        cifar.main(["--dataset", "cifar10", "--labels", "coarse"])
    assert "--labels is for cifar100" in capsys.readouterr().err
