"""Tiny ImageNet's layout and folders of class folders, on images made here and decoded by OpenCV."""

import json
import re
import shutil
import tarfile
import zipfile

import cv2
import lmdb
import numpy as np
import pytest
from commands import fails, read_lmdb, read_split

from data_prep import image_folder, tiny_imagenet
from data_prep.datum import decode_datum
from data_prep.lmdb_io import open_records

WNIDS = ["n03", "n01", "n02"]  # not sorted: labels follow this file


def write_image(path, seed, size=(64, 64), gray=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8) if gray else (8, 8, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(blocks, size, interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def tiny(tmp_path):
    """Three classes of 12 training and 4 validation images; every fifth is gray."""
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        for image in range(12):
            write_image(root / f"train/{wnid}/images/{wnid}_{image}.JPEG", 100 * label + image, gray=image % 5 == 0)
    lines = []
    for image in range(12):
        write_image(root / f"val/images/val_{image}.JPEG", 1000 + image, gray=image % 5 == 0)
        lines.append(f"val_{image}.JPEG\t{WNIDS[image % 3]}\t0\t0\t60\t60\n")
    (root / "val/val_annotations.txt").write_text("".join(lines[::-1]))
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text("n00\tentity\nn01\tbullfrog\nn02\tcliff, drop\n")
    return root


def decoded(path, size=None, interpolation=cv2.INTER_AREA):
    """(3, H, W) as OpenCV reads it."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return (cv2.resize(pixels, (size, size), interpolation=interpolation) if size else pixels).transpose(2, 0, 1)


@pytest.mark.parametrize("form", ["folder", "parent folder", "t.zip", "t.tar.xz"])
def test_tiny_imagenet(tiny, tmp_path, form):
    source = {"folder": tiny, "parent folder": tmp_path / "alone"}.get(form, tmp_path / form)
    if form == "parent folder":
        shutil.copytree(tiny, source / tiny.name)
    elif form == "t.zip":
        with zipfile.ZipFile(source, "w") as archive:
            for file in tiny.rglob("*"):
                archive.write(file, file.relative_to(tmp_path))
    elif form == "t.tar.xz":
        with tarfile.open(source, "w:xz") as archive:
            archive.add(tiny, tiny.name)
    assert tiny_imagenet.main(["--source", str(source), "--out", str(tmp_path / "out")]) == 0
    names, pixels, labels = read_split(tmp_path / "out/train_lmdb")
    assert sorted(names) == sorted(str(path.relative_to(tiny)) for path in tiny.glob("train/*/images/*"))
    assert [WNIDS[label] for label in labels] == [name.split("/")[1] for name in names]
    test_names, test_pixels, test_labels = read_split(tmp_path / "out/test_lmdb")
    assert sorted(test_names) == sorted(f"val/images/val_{image}.JPEG" for image in range(12))
    assert [label for label in test_labels] == [int(re.search(r"\d+", name)[0]) % 3 for name in test_names]
    for name, image in [*zip(names, pixels, strict=True), *zip(test_names, test_pixels, strict=True)]:
        assert np.array_equal(image, decoded(tiny / name))
    description = json.loads((tmp_path / "out/dataset.json").read_text())
    assert description["classes"] == WNIDS and description["words"] == ["n03", "bullfrog", "cliff, drop"]
    np.testing.assert_allclose(description["mean"], pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(description["std"], pixels.std((0, 2, 3)), rtol=1e-9)


@pytest.mark.parametrize(("size", "interpolation"), [(48, cv2.INTER_AREA), (80, cv2.INTER_LINEAR)])
def test_resized(tiny, tmp_path, size, interpolation):
    tiny_imagenet.main(["--source", str(tiny), "--out", str(tmp_path / "out"), "--size", str(size)])
    names, pixels, _ = read_split(tmp_path / "out/train_lmdb")
    for name, image in zip(names, pixels, strict=True):
        assert np.array_equal(image, decoded(tiny / name, size, interpolation))


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_encoded_records_decode_to_the_original_pixels(tiny, tmp_path, encoding):
    """As stock Caffe decodes them: to as many channels as the file has. Colour JPEGs are kept byte for byte."""
    from caffe.proto.caffe_pb2 import Datum

    write_image(tiny / "train/n01/images/n01_1.JPEG", 1)
    (tiny / "train/n01/images/n01_1.JPEG").write_bytes(cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes())
    tiny_imagenet.main(["--source", str(tiny), "--out", str(tmp_path / "out"), "--encoding", encoding])
    kept = 0
    with lmdb.open(str(tmp_path / "out/train_lmdb"), readonly=True, lock=False) as env, env.begin() as transaction:
        for key, value in transaction.cursor():
            path = tiny / key[9:].decode()
            datum = Datum.FromString(value)
            assert datum.encoded and (datum.channels, datum.height, datum.width) == (3, 64, 64)
            image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(image.transpose(2, 0, 1), decoded(path))
            kept += datum.data == path.read_bytes()
    assert kept == (0 if encoding == "png" else 36 - 3 * 3 - 1)


def test_links_in_a_tar_are_files(tiny, tmp_path):
    """A second hard link, and a symbolic one to what comes later in the archive."""
    first = tiny / "train/n01/images/n01_3.JPEG"
    (tiny / "train/n01/images/n01_99.JPEG").hardlink_to(first)
    (tiny / "train/n01/images/n01_0_link.JPEG").symlink_to(first.name)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tiny, tiny.name)
        assert sum(member.islnk() for member in archive) == 1
    for source, out in ((tmp_path / "t.tar", "a"), (tiny, "b")):
        tiny_imagenet.main(["--source", str(source), "--out", str(tmp_path / out)])
    found = [sorted(read_lmdb(tmp_path / f"{out}/train_lmdb")) for out in "ab"]
    assert found[0] == found[1] and len(found[0]) == 36 + 2


@pytest.mark.parametrize("target", ["../n02", "nowhere", "link"])
def test_a_link_in_a_tar_to_no_file_is_named(tiny, tmp_path, capfd, target):
    (tiny / "train/link").symlink_to(target)
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tiny, tiny.name)
    error = fails(capfd, tiny_imagenet.main, "--source", tmp_path / "t.tar", "--out", tmp_path / "out")
    assert f"t.tar/tiny-imagenet-200/train/link is a link to {target}, which is no file in the archive" in error


def test_archives_that_cannot_be_read_are_named(tiny, tmp_path, capfd):
    with tarfile.open(tmp_path / "t.tar.bz2", "w:bz2") as archive:
        archive.add(tiny, tiny.name)
    data = bytearray((tmp_path / "t.tar.bz2").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "t.tar.bz2").write_bytes(data)
    error = fails(capfd, tiny_imagenet.main, "--source", tmp_path / "t.tar.bz2", "--out", tmp_path / "out")
    assert "t.tar.bz2: no archive, or one that is truncated or damaged" in error
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("wnids.txt", "n01")
    plain = (tmp_path / "t.zip").read_bytes()
    local, central = plain.index(b"PK\3\4"), plain.index(b"PK\1\2")
    for offset, value, message in ((6, 1, "encrypted"), (8, 99, "compression method is not supported")):
        changed = bytearray(plain)
        changed[local + offset] = changed[central + offset + 2] = value
        (tmp_path / "t.zip").write_bytes(changed)
        error = fails(capfd, tiny_imagenet.main, "--source", tmp_path / "t.zip", "--out", tmp_path / "out")
        assert "t.zip/wnids.txt: " in error and message in error


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: truncated(root / "train/n01/images/n01_3.JPEG"), "n01_3.JPEG: unreadable image file"),
        (
            lambda root: (root / "val/images/val_2.JPEG").write_bytes(b"no image"),
            r"val_2.JPEG: unreadable .*\(8 bytes\)",
        ),
        (
            lambda root: (root / "val/images/val_2.JPEG").write_bytes(b""),
            r"val_2.JPEG: unreadable image file \(0 bytes\)",
        ),
        (lambda root: write_image(root / "train/n01/images/n01_3.JPEG", 1, (64, 60)), "64x60 .*--size S resizes"),
        (lambda root: write_image(root / "val/images/val_3.JPEG", 1, (60, 64)), "val_3.JPEG: 60x64 pixels, not 64x64"),
        (lambda root: shutil.rmtree(root / "train/n01"), "train/n01/images: no images of this class of wnids.txt"),
        (lambda root: (root / "val/images/val_5.JPEG").unlink(), "val/images/val_5.JPEG is missing"),
        (lambda root: (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn77\n"), "annotations.txt:1: 'val_0"),
        (
            lambda root: (root / "val/val_annotations.txt").write_text("val_0.JPEG\tn01\n"),
            "test images lack 2 of 3 classes",
        ),
        (lambda root: (root / "val/val_annotations.txt").unlink(), "val_annotations.txt is missing"),
        (lambda root: (root / "words.txt").write_text("n01 bullfrog\n"), "words.txt: 'n01 bullfrog' is no class, tab"),
        (lambda root: (root / "words.txt").write_bytes(b"n01\t\xe9\n"), "words.txt is no text in UTF-8"),
        (lambda root: (root / "wnids.txt").write_bytes(b"\xe9\n"), "wnids.txt is no text in UTF-8"),
        (lambda root: (root / "val/val_annotations.txt").write_bytes(b"\xe9\n"), "annotations.txt is no text in UTF-8"),
        (lambda root: (root / "wnids.txt").unlink(), "holds no Tiny ImageNet: wnids.txt"),
    ],
)
def test_damage_is_one_clear_message(tiny, tmp_path, capfd, damage, message):
    damage(tiny)
    assert re.search(message, fails(capfd, tiny_imagenet.main, "--source", tiny, "--out", tmp_path / "data/out"))
    assert list((tmp_path / "data").iterdir()) == []


def test_tiny_imagenet_subset(shared, tmp_path):
    """The given 20 classes: counts and statistics as its README states them."""
    archive = shared / "tiny-imagenet/tiny-imagenet-20.tar.xz"
    assert tiny_imagenet.main(["--source", str(archive), "--out", str(tmp_path / "out")]) == 0
    description = json.loads((tmp_path / "out/dataset.json").read_text())
    assert description["train"] == {"records": 10000, "per_class": [500] * 20}
    assert description["test"] == {"records": 1000, "per_class": [50] * 20}
    assert description["classes"][0] == "n02124075" and description["words"][0] == "Egyptian cat"
    np.testing.assert_allclose(description["mean"][::-1], [124.3233, 112.8415, 95.1736], atol=6e-5)
    np.testing.assert_allclose(description["std"][::-1], [69.5949, 67.7425, 70.3602], atol=6e-5)
    with tarfile.open(archive) as tar:  # a stream: members in the archive's order
        originals = {m.name.split("/", 1)[1]: tar.extractfile(m).read() for m in tar if m.name.endswith(".JPEG")}
    for split in ("train", "test"):
        for key, (pixels, _) in read_lmdb(tmp_path / f"out/{split}_lmdb").items():
            original = cv2.imdecode(np.frombuffer(originals.pop(key[9:]), np.uint8), cv2.IMREAD_COLOR)
            assert np.array_equal(pixels, original.transpose(2, 0, 1))
    assert not originals


@pytest.fixture
def folders(tmp_path):
    """Two class folders with 10 and 20 PNGs and a file that is no image."""
    root = tmp_path / "pictures"
    for name, count in (("cat", 10), ("ant", 20)):
        for image in range(count):
            write_image(root / f"{name}/{image}.png", image + count)
    (root / "cat/readme.txt").write_text("no image")
    return root


def test_image_folder_divides_each_class(folders, tmp_path):
    image_folder.main(["--source", str(folders), "--out", str(tmp_path / "out"), "--test-fraction", "0.2"])
    description = json.loads((tmp_path / "out/dataset.json").read_text())
    assert description["name"] == "pictures" and description["classes"] == ["ant", "cat"]
    assert description["train"]["per_class"] == [16, 8] and description["test"]["per_class"] == [4, 2]
    names = []
    for split in ("train", "test"):
        split_names, pixels, labels = read_split(tmp_path / f"out/{split}_lmdb")
        names += split_names
        for name, image, label in zip(split_names, pixels, labels, strict=True):
            assert np.array_equal(image, decoded(folders / name)) and name.startswith(["ant", "cat"][label])
    assert sorted(names) == sorted(str(path.relative_to(folders)) for path in folders.rglob("*.png"))


def test_the_default_fraction_may_be_given_and_others_not_later(folders, tmp_path, capfd):
    arguments = ["--source", str(folders), "--out", str(tmp_path / "out")]
    image_folder.main(arguments)
    image_folder.main([*arguments, "--test-fraction", "0.1"])
    assert "already prepared" in capfd.readouterr().out
    error = fails(capfd, image_folder.main, *arguments, "--test-fraction", 0.2)
    assert "was prepared with test_fraction the default, not 0.2" in error


def test_a_change_behind_a_link_is_seen(folders, tmp_path, capfd):
    """The class folder is a link, and one in it leads back up."""
    (folders / "cat").rename(tmp_path / "elsewhere")
    (folders / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(folders)
    arguments = ["--source", str(folders), "--out", str(tmp_path / "out")]
    image_folder.main(arguments)
    write_image(tmp_path / "elsewhere/3.png", 99)
    assert "out exists and was prepared with checksums" in fails(capfd, image_folder.main, *arguments)


@pytest.mark.parametrize(
    ("source", "name"),
    [(".hid", ".hid"), ("my.photos", "my.photos"), ("a.v2.tar.gz", "a.v2"), ("b.zip", "b"), (".zip", ".zip")],
)
def test_the_name_is_that_of_the_folder_or_archive(folders, tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    if source.endswith("zip"):
        shutil.make_archive("archive", "zip", folders)
        (tmp_path / "archive.zip").rename(source)
    elif source.endswith("gz"):
        shutil.make_archive("archive", "gztar", folders)
        (tmp_path / "archive.tar.gz").rename(source)
    else:
        folders.rename(source)
    image_folder.main(["--source", source])
    assert json.loads((tmp_path / "data" / name / "dataset.json").read_text())["name"] == name


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_image_folder_with_both_splits(folders, tmp_path, test_folder):
    root = tmp_path / "root"
    shutil.copytree(folders, root / "train")
    for name in ("ant", "cat"):
        write_image(root / f"{test_folder}/{name}/x.jpg", 5)
    image_folder.main(["--source", str(root), "--out", str(tmp_path / "out")])
    assert sorted(read_split(tmp_path / "out/test_lmdb")[0]) == [f"{test_folder}/ant/x.jpg", f"{test_folder}/cat/x.jpg"]
    assert len(read_split(tmp_path / "out/train_lmdb")[0]) == 30


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: write_image(root / "cat/3.png", 0, (32, 64)), "--size S resizes all to SxS"),
        (lambda root: (root / "dog").mkdir(), "pictures/dog: no images of this class"),
        (lambda root: write_image(root / "dog/1.png", 0), "dog/1.png is the only image of its class"),
        (lambda root: truncated(root / "ant/4.png"), "ant/4.png: unreadable image file"),
        (lambda root: [shutil.rmtree(root / name) for name in ("ant", "cat")], "holds no class folders"),
    ],
)
def test_bad_image_folder_is_one_clear_message(folders, tmp_path, capfd, damage, message):
    damage(folders)
    assert re.search(message, fails(capfd, image_folder.main, "--source", folders, "--out", tmp_path / "data/out"))
    assert list((tmp_path / "data").iterdir()) == []


def test_image_folder_test_class_without_training_images(folders, tmp_path, capfd):
    shutil.copytree(folders, tmp_path / "root/train")
    shutil.copytree(folders, tmp_path / "root/test")
    write_image(tmp_path / "root/test/dog/1.png", 0)
    error = fails(capfd, image_folder.main, "--source", tmp_path / "root", "--out", tmp_path / "out")
    assert "root/test/dog: a class without training images" in error


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_stock_caffe_reads_the_records(tiny, tmp_path, encoding):
    """Its Data layer, with nothing set but the source: gray files have three channels, too."""
    import caffe

    if not hasattr(caffe, "Net"):
        pytest.skip("only caffe_pb2 here, no pycaffe")
    tiny_imagenet.main(["--source", str(tiny), "--out", str(tmp_path / "out"), "--encoding", encoding])
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        'layer { name: "data" type: "Data" top: "data" top: "label" '
        f'data_param {{ source: "{tmp_path}/out/train_lmdb" batch_size: 36 backend: LMDB }} }}'
    )
    net = caffe.Net(str(prototxt), caffe.TEST)  # owns what forward returns
    tops = net.forward()
    order = np.random.default_rng([1, 0]).permutation(36)  # of the files, class by class as wnids.txt has them
    files = [
        f"train/{wnid}/images/{file.name}" for wnid in WNIDS for file in sorted(tiny.glob(f"train/{wnid}/images/*"))
    ]
    assert tops["label"].tolist() == [index // 12 for index in order]
    for pixels, index in zip(tops["data"], order, strict=True):
        assert np.array_equal(pixels, decoded(tiny / files[index]))


def test_turned_transparent_and_deep_pictures(tmp_path):
    """Upright by the EXIF tag, 8 bits, three channels; PNG where stock Caffe would see other pixels in the file."""
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20, 4), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", pixels[:, :, :3])[1].tobytes()
    turn_right = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    turned = jpeg[:2] + b"\xff\xe1" + (len(turn_right) + 2).to_bytes(2, "big") + turn_right + jpeg[2:]
    deep = pixels[:, :, :3].astype(np.uint16) * 257
    files = {
        "turned.jpg": (turned, np.rot90(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), -1)),
        "transparent.png": (cv2.imencode(".png", pixels)[1].tobytes(), pixels[:, :, :3]),
        "deep.png": (cv2.imencode(".png", deep)[1].tobytes(), pixels[:, :, :3]),
    }
    for split in ("train", "test"):
        (tmp_path / f"in/{split}/a").mkdir(parents=True)
        for name, (data, _) in files.items():
            (tmp_path / f"in/{split}/a/{name}").write_bytes(data)
    for encoding in ("raw", "jpeg"):
        image_folder.main(["--source", str(tmp_path / "in"), "--out", str(tmp_path / encoding), "--encoding", encoding])
        with open_records(tmp_path / encoding / "train_lmdb") as transaction:
            for key, record in transaction.cursor():
                found, _ = decode_datum(record, key.decode())
                assert np.array_equal(found, files[key.decode().split("/")[-1]][1].transpose(2, 0, 1))
