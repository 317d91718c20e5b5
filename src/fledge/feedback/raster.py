"""Pictures of states, drawn by a few lines of NumPy, and how several of them are laid out for whoever looks at them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from fledge.core.errors import ConfigError, ShapeError

Picture = UInt8[np.ndarray, "_ _ 3"]
"""Height and width in pixels, and red, green, blue."""
Layout = Literal["separate", "filmstrip", "grid"]
LAYOUTS: tuple[Layout, ...] = ("separate", "filmstrip", "grid")
GAP = 4
"""Grey pixels between the frames of a filmstrip or grid."""
_GREY = 128
_SAMPLES = 2
"""Each pixel is the mean of so many samples along each axis, so edges are smooth."""


class Canvas:
    """A white square with the coordinates [−extent, extent]², y upwards.

    Args:
        size: pixels along each side.
        extent: what lies at the edge.
    """

    def __init__(self, size: int, extent: float) -> None:
        if size < 8:
            raise ConfigError(f"A picture has at least 8 pixels along each side, not {size}.")
        n = size * _SAMPLES
        axis = ((np.arange(n) + 0.5) / n * 2 - 1) * extent
        self.x: Float[np.ndarray, "row column"] = np.broadcast_to(axis[None, :], (n, n))
        self.y: Float[np.ndarray, "row column"] = np.broadcast_to(-axis[:, None], (n, n))
        self.pixels = np.full((n, n, 3), 255, np.uint8)

    def paint(self, where: Bool[np.ndarray, "row column"], colour: tuple[int, int, int]) -> None:
        """Colour the samples that `where` marks."""
        self.pixels[where] = colour

    def disc(self, centre: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
        """A filled circle."""
        self.paint((self.x - centre[0]) ** 2 + (self.y - centre[1]) ** 2 <= radius**2, colour)

    def stick(
        self, a: tuple[float, float], b: tuple[float, float], half_width: float, colour: tuple[int, int, int]
    ) -> None:
        """A thick line from a to b with round ends."""
        along = np.array(b, float) - np.array(a, float)
        length = float(along @ along) or 1.0
        t = np.clip(((self.x - a[0]) * along[0] + (self.y - a[1]) * along[1]) / length, 0.0, 1.0)
        distance = (self.x - a[0] - t * along[0]) ** 2 + (self.y - a[1] - t * along[1]) ** 2
        self.paint(distance <= half_width**2, colour)

    def square(self, centre: tuple[float, float], half: float, colour: tuple[int, int, int]) -> None:
        """A filled square."""
        self.paint((abs(self.x - centre[0]) <= half) & (abs(self.y - centre[1]) <= half), colour)

    def picture(self) -> Picture:
        """What was painted, smoothed to the asked-for size."""
        n = len(self.pixels) // _SAMPLES
        blocks = self.pixels.reshape(n, _SAMPLES, n, _SAMPLES, 3).astype(np.float32)
        return np.round(blocks.mean((1, 3))).astype(np.uint8)


Renderer = Callable[[np.ndarray, int], Picture]
"""(observation, pixels along each side) → picture."""


def arrange(frames: Sequence[Picture], layout: str, *, captions: bool = False) -> list[Picture]:
    """The pictures that are shown: one for each frame, or one that holds them all.

    Args:
        frames: in time order, of one size.
        layout: `separate`, `filmstrip` (side by side) or `grid` (rows of ⌈√n⌉).
        captions: write the number of each frame, from 1, in its corner.

    Raises:
        ConfigError: there is no such layout.
        ShapeError: there is no frame, or sizes differ.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout is one of {', '.join(LAYOUTS)}, not {layout!r}.")
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise ShapeError(f"Frames of one size are wanted, but {sorted({f.shape for f in frames})} came.")
    shown = [numbered(frame, i) for i, frame in enumerate(frames, 1)] if captions else list(frames)
    if layout == "separate":
        return shown
    columns = len(shown) if layout == "filmstrip" else int(np.ceil(np.sqrt(len(shown))))
    return [_tiled(shown, columns)]


def _tiled(frames: Sequence[Picture], columns: int) -> Picture:
    high, wide, _ = frames[0].shape
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (high + GAP) - GAP, columns * (wide + GAP) - GAP, 3), _GREY, np.uint8)
    for i, frame in enumerate(frames):
        y, x = (i // columns) * (high + GAP), (i % columns) * (wide + GAP)
        sheet[y : y + high, x : x + wide] = frame
    return sheet


def numbered(frame: Picture, number: int) -> Picture:
    """The frame with its number in the upper left corner."""
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).text((4, 2), str(number), fill=(60, 60, 60))
    return np.asarray(image)


def tinted(frame: Picture, colour: tuple[int, int, int], share: float = 0.15) -> Picture:
    """The frame mixed with a colour: 15 % green or red shows what a film's segment was judged to be."""
    mixed = (1 - share) * frame.astype(np.float32) + share * np.array(colour, np.float32)
    return np.round(mixed).astype(np.uint8)


def to_gif(frames: Sequence[Picture], frames_per_second: float = 20.0) -> bytes:
    """A film as a GIF file that starts over for ever."""
    images = [Image.fromarray(frame).quantize(32) for frame in frames]
    out = io.BytesIO()
    duration = round(1000 / frames_per_second)
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=True)
    return out.getvalue()
