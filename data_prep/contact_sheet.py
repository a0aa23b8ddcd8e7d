"""Rows of small pictures with a caption each, in one PNG."""

from pathlib import Path

import cv2
import numpy as np

from data_prep.datum import to_interleaved
from data_prep.errors import DataError

MIN_TILE, MAX_TILE = 64, 256  # pixels; smaller images are enlarged by a whole factor, so that each pixel stays visible
GAP, CAPTION, LINE = 4, 150, 14
BLACK, WHITE = (0, 0, 0), 255


def write_contact_sheet(path: Path, captions: list[str], originals: list[np.ndarray], views: np.ndarray | None) -> None:
    """`originals`: (C, H, W) uint8 BGR or gray; `views`: (number, rows, C, H, W) of the same rows, or None.

    DataError if `path` exists and is no PNG, or cannot be written.
    """
    if path.exists() and path.read_bytes()[:4] != b"\x89PNG":
        raise DataError(f"{path} exists and is no PNG: choose another --out")
    rows = []
    for row, (caption, original) in enumerate(zip(captions, originals, strict=True)):
        tiles = [_tile(original)] + ([] if views is None else [_tile(view[row]) for view in views])
        rows.append((caption, tiles))
    sheet = _join(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())


def _tile(pixels: np.ndarray) -> np.ndarray:
    tile = to_interleaved(pixels)
    if tile.shape[2] != 3:
        tile = np.repeat(tile[:, :, :1], 3, axis=2)
    side = max(tile.shape[:2])
    if side > MAX_TILE:
        return cv2.resize(tile, None, fx=MAX_TILE / side, fy=MAX_TILE / side, interpolation=cv2.INTER_AREA)
    factor = -(-MIN_TILE // side)
    return tile.repeat(factor, axis=0).repeat(factor, axis=1)


def _join(rows: list[tuple[str, list[np.ndarray]]]) -> np.ndarray:
    """Captions at the left, then the stored image, a double gap, and the augmented ones."""
    height = max(tile.shape[0] for _, tiles in rows for tile in tiles) + GAP
    width = max(tile.shape[1] for _, tiles in rows for tile in tiles) + GAP
    columns = max(len(tiles) for _, tiles in rows)
    sheet = np.full((LINE + GAP + len(rows) * height, CAPTION + columns * width + 2 * GAP, 3), WHITE, np.uint8)
    _write(sheet, "stored", CAPTION, LINE)
    if columns > 1:
        _write(sheet, "augmented", CAPTION + width + 2 * GAP, LINE)
    for row, (caption, tiles) in enumerate(rows):
        top = LINE + GAP + row * height
        _write(sheet[:, : CAPTION - GAP], caption, GAP, top + height // 2)
        for column, tile in enumerate(tiles):
            left = CAPTION + column * width + (2 * GAP if column else 0)
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _write(sheet: np.ndarray, text: str, left: int, bottom: int) -> None:
    ascii_text = text.encode("ascii", "replace").decode()  # OpenCV's fonts have nothing else
    cv2.putText(sheet, ascii_text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)
