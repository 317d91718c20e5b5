"""Frames as PNG files in memory, without an image library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np

from fledge.core.annotations import Item, Media
from fledge.core.errors import DataError, ShapeError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(frame: np.ndarray) -> bytes:
    """A frame (height, width, 3), 8-bit RGB, as a PNG file. The same pixels always give the same bytes.

    Raises:
        ShapeError: it is not of that shape and type.
    """
    frame = np.ascontiguousarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ShapeError(
            f"A frame is (height, width, 3) of uint8; this one is {frame.shape} of {frame.dtype}. "
            "Scale it to 0..255 and convert it with .astype('uint8')."
        )
    height, width, _ = frame.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), frame.reshape(height, -1)], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 6)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pixels(content: bytes) -> np.ndarray:
    """The frame of a PNG file that `png` wrote: (height, width, 3) of uint8.

    Raises:
        DataError: it is another kind of file. (Any picture: `PIL.Image.open(io.BytesIO(content))`.)
    """
    shape, at, body = size(content), len(_SIGNATURE), b""
    while shape is not None and at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        body += content[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    try:
        width, height = shape or (0, 0)
        rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, 1 + 3 * width)
        if shape is None or rows[:, 0].any():
            raise ValueError
    except (ValueError, zlib.error):
        raise DataError("This is no PNG file that fledge.data.pictures.png wrote. Open it with Pillow.") from None
    return rows[:, 1:].reshape(height, width, 3)


def frames_item(name: str, frames: Iterable[np.ndarray], **meta: str | int | float | bool) -> Item:
    """An item of pictures in time order."""
    return Item(name, media=tuple(Media("image", png(frame)) for frame in frames), meta=meta)


def size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG file in pixels; None for any other file."""
    if content[:8] != _SIGNATURE or len(content) < 24:
        return None
    width, height = struct.unpack(">II", content[16:24])
    return width, height
