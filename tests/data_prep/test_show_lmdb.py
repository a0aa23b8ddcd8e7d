"""show_lmdb on records made here: its numbers against numpy, its sheet against the records."""

import json

import cv2
import lmdb
import numpy as np
import pytest
from commands import fails

from data_prep import show_lmdb
from data_prep.datum import Image, encode_datum
from data_prep.lmdb_io import LmdbWriter, record_key


def has_augmented_data() -> bool:
    import caffe

    return "AugmentedData" in getattr(caffe, "layer_type_list", list)()


@pytest.fixture
def images():
    """40 images of 32x32; the labels 0, 1, 2 come 20, 10 and 10 times, and 2 comes first."""
    return np.random.default_rng(3).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8), np.array([2, 0, 1, 0] * 10)


@pytest.fixture
def path(images, tmp_path, monkeypatch):
    """Their LMDB, every tenth as PNG, beside a dataset.json."""
    monkeypatch.chdir(tmp_path)
    with LmdbWriter(tmp_path / "train_lmdb") as writer:
        for position, (pixels, label) in enumerate(zip(*images, strict=True)):
            encoding = "png" if position % 10 == 0 else "raw"
            record = encode_datum(Image(pixels), int(label), encoding)
            writer.put([(record_key(position, f"i/{position}"), record)])
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["ant", "bee", "cat"]}))
    return tmp_path / "train_lmdb"


def test_summary(path, images, capsys):
    assert show_lmdb.main([str(path)]) == 0
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines()]
    assert f"{path}: 40 records" in output
    assert ["36", "raw", "of", "3x32x32"] == lines[1][:4] and ["4", "PNG", "of", "3x32x32"] == lines[2][:4]
    np.testing.assert_allclose([float(x) for x in lines[3][1:4]], images[0].mean((0, 2, 3)), atol=6e-4)
    np.testing.assert_allclose([float(x) for x in lines[4][1:4]], images[0].std((0, 2, 3)), atol=6e-4)
    assert lines[6:9] == [["0", "20", "ant"], ["1", "10", "bee"], ["2", "10", "cat"]]


def test_sheet_shows_the_stored_images(path, images, capsys):
    """One row of each label, in the order of labels, each pixel enlarged to 2x2."""
    show_lmdb.main([str(path), "--out", "new/sheet.png", "--views", "3"])
    sheet = cv2.imread("new/sheet.png")
    for row, record in enumerate((1, 2, 0)):
        top = 18 + row * 68
        shown = sheet[top : top + 64 : 2, 150 : 150 + 64 : 2].transpose(2, 0, 1)
        assert np.array_equal(shown, images[0][record])
    assert sheet.shape[1] == (150 + 4 * 68 + 8 if has_augmented_data() else 150 + 68 + 8)


def test_augmented_images_are_shifts_of_the_stored_one(path, images):
    """Each view equals a crop of the image padded by 4 with its channels' means, mirrored or not."""
    if not has_augmented_data():
        pytest.skip("this Caffe has no AugmentedData")
    show_lmdb.main([str(path), "--out", "sheet.png", "--views", "6"])
    sheet = cv2.imread("sheet.png")
    mean = np.rint(images[0].mean((0, 2, 3))).astype(np.uint8)
    found = set()
    for row, record in enumerate((1, 2, 0)):
        padded = np.empty((3, 40, 40), np.uint8)
        padded[:] = mean[:, None, None]
        padded[:, 4:36, 4:36] = images[0][record]
        crops = {
            crop[..., ::step].tobytes(): (y, x, step)
            for y in range(9)
            for x in range(9)
            for step in (1, -1)
            for crop in [padded[:, y : y + 32, x : x + 32]]
        }
        for view in range(6):
            left = 150 + (view + 1) * 68 + 8
            shown = sheet[18 + row * 68 : 18 + row * 68 + 64 : 2, left : left + 64 : 2].transpose(2, 0, 1)
            found.add(crops[np.ascontiguousarray(shown).tobytes()])
    assert len(found) > 10 and {step for _, _, step in found} == {1, -1}


def test_a_description_of_another_kind_names_no_classes(path, capsys):
    (path.parent / "dataset.json").write_text("[]")
    assert show_lmdb.main([str(path)]) == 0
    assert "      0        20\n" in capsys.readouterr().out


def test_records_of_several_sizes(path, capsys):
    with LmdbWriter(path) as writer:
        writer.put([(b"9", encode_datum(Image(np.zeros((3, 20, 30), np.uint8)), 3, "raw"))])
    assert show_lmdb.main([str(path)]) == 0
    output = capsys.readouterr().out
    assert "1 raw of 3x20x30" in output and "no augmented images: the records are of several sizes" in output
    assert cv2.imread("train_lmdb.png") is not None


def test_names_that_are_no_text(path, capsys):
    """Of a file name that is not UTF-8, as os.listdir gives it."""
    with LmdbWriter(path) as writer:
        writer.put([(record_key(40, "\udcff.png"), encode_datum(Image(np.zeros((3, 32, 32), np.uint8)), 3, "raw"))])
    assert show_lmdb.main([str(path)]) == 0
    assert "41 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff\xff\xff", "record 9_x: no Datum"),
        (b"", "record 9_x: 0 bytes of pixels"),
        (encode_datum(Image(np.zeros((3, 8, 8), np.uint8)), 0, "raw").replace(b"\x08\x03", b"\x08\x04"), "its shape"),
        (encode_datum(Image(np.zeros((3, 8, 8), np.uint8)), 0, "png").replace(b"PNG", b"GNP"), "unreadable image"),
        (encode_datum(Image(np.zeros((3, 8, 8), np.uint16)), 0, "png"), "an encoded image of 16 bits and 3 channels"),
        (encode_datum(Image(np.zeros((4, 8, 8), np.uint8)), 0, "png"), "an encoded image of 8 bits and 4 channels"),
    ],
)
def test_damaged_record_is_named(path, capfd, record, message):
    with lmdb.open(str(path)) as env, env.begin(write=True) as transaction:
        transaction.put(b"9_x", record)
    assert message in fails(capfd, show_lmdb.main, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "41"], "--crop 41 --pad 4: the image to crop from is 40 pixels wide"),
        (["--crop", "33", "--pad", "0"], "the image to crop from is 32 pixels wide"),
        (["--crop", "41", "--scale", "40", "48"], "the image to crop from is 40 pixels wide"),
        (["--scale", "48", "40"], "MIN must be from 1 to MAX"),
        (["--pad", "-1"], "--pad -1"),
    ],
)
def test_augmentation_that_does_not_fit(path, capfd, options, message):
    assert message in fails(capfd, show_lmdb.main, path, *options)


def test_other_files_are_not_overwritten(path, capfd):
    with open("notes.txt", "w") as file:
        file.write("mine")
    assert "notes.txt exists and is no PNG" in fails(capfd, show_lmdb.main, path, "--out", "notes.txt")
    assert open("notes.txt").read() == "mine"


def test_no_lmdb(tmp_path, capfd):
    assert "no LMDB here" in fails(capfd, show_lmdb.main, tmp_path / "none")
