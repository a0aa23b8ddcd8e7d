"""Images as Caffe's Datum records: raw planar BGR, or PNG/JPEG bytes that stock Caffe decodes itself."""

from typing import NamedTuple

import cv2
import numpy as np

from data_prep.errors import DataError

try:
    from caffe.proto.caffe_pb2 import Datum
except ImportError as error:
    raise SystemExit(
        f"error: cannot import caffe.proto.caffe_pb2 ({error}): run `make` or `pip install .` in the project's root"
    ) from None

ENCODINGS = ("raw", "png", "jpeg")
JPEG_QUALITY = 95
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
FORMS = {JPEG_START: "JPEG", b"\x89PNG": "PNG"}


class Image(NamedTuple):
    """`pixels` (3, height, width) uint8 in BGR order; `file` the bytes that decode to just these pixels, if any."""

    pixels: np.ndarray
    file: bytes | None = None


def decode_image(data: bytes, name: str, size: int | None = None) -> Image:
    """Decodes an image file to three channels (gray is repeated); `size` resizes it to size x size.

    Raises DataError naming the file when it cannot be read or is cut short.
    """
    pixels = _imdecode(data, cv2.IMREAD_COLOR)
    # libjpeg fills a truncated file's missing part with gray and only warns
    if pixels is None or (data.startswith(JPEG_START) and JPEG_END not in data[-64:]):
        raise DataError(f"{name}: unreadable image file ({len(data)} bytes), damaged or cut short")
    if size is None or pixels.shape[:2] == (size, size):
        return Image(to_planar(pixels), data)
    shrinks = size * size < pixels.shape[0] * pixels.shape[1]
    resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return Image(to_planar(resized))


def encode_datum(image: Image, label: int, encoding: str) -> bytes:
    """The serialized Datum. "raw" and "png" are lossless. "jpeg" keeps the original file where it can.

    A file that Caffe would decode to other pixels (gray, rotated, no JPEG) becomes PNG; pixels without a file become
    JPEG of quality 95.
    """
    channels, height, width = image.pixels.shape
    datum = Datum(channels=channels, height=height, width=width, label=label)
    if encoding == "raw":
        datum.data = image.pixels.tobytes()
    else:
        datum.data = _encoded(image, encoding)
        datum.encoded = True
    return datum.SerializeToString()


def decode_datum(record: bytes, key: str) -> tuple[np.ndarray, int]:
    """Pixels (channels, height, width) uint8 and label of a serialized Datum; DataError naming `key` if damaged."""
    try:
        datum = Datum.FromString(record)
    except Exception as error:  # DecodeError lives in different modules of different protobuf versions
        raise DataError(f"record {key}: no Datum ({error})") from None
    if datum.encoded:
        pixels = _imdecode(datum.data, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise DataError(f"record {key}: unreadable image of {len(datum.data)} bytes")
        pixels = np.atleast_3d(pixels)
        if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):  # Caffe ends at these
            found = f"{8 * pixels.dtype.itemsize} bits and {pixels.shape[2]} channels"
            raise DataError(f"record {key}: an encoded image of {found}: Caffe decodes 8 bits and 1 or 3 channels")
        return to_planar(pixels), datum.label
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data) != np.prod(shape) or not datum.data:
        raise DataError(f"record {key}: {len(datum.data)} bytes of pixels, its shape {shape} needs {np.prod(shape)}")
    return np.frombuffer(datum.data, np.uint8).reshape(shape), datum.label


def stored_form(record: bytes) -> str:
    """How the pixels of a valid record are stored: "raw", "JPEG", "PNG", or "encoded" for anything else."""
    datum = Datum.FromString(record)
    if not datum.encoded:
        return "raw"
    return next((form for magic, form in FORMS.items() if datum.data.startswith(magic)), "encoded")


def to_planar(pixels: np.ndarray) -> np.ndarray:
    """(height, width, channels) to contiguous (channels, height, width)."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_interleaved(pixels: np.ndarray) -> np.ndarray:
    """(channels, height, width) to contiguous (height, width, channels)."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _imdecode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _encoded(image: Image, encoding: str) -> bytes:
    if encoding == "jpeg" and image.file is None:
        return _imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if encoding == "jpeg" and image.file.startswith(JPEG_START) and _caffe_sees(image.file, image.pixels):
        return image.file
    return _imencode(".png", image, [])


def _caffe_sees(file: bytes, pixels: np.ndarray) -> bool:
    seen = _imdecode(file, cv2.IMREAD_UNCHANGED)  # what DecodeDatumNative does
    return seen is not None and seen.ndim == 3 and np.array_equal(to_planar(seen), pixels)


def _imencode(extension: str, image: Image, options: list[int]) -> bytes:
    return cv2.imencode(extension, to_interleaved(image.pixels), options)[1].tobytes()
