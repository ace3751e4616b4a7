"""Contact sheets: many small pictures on one, a row per condition, as a person judges a generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adloom.imagery.fonts import font

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 96
"""Pixels of a picture on the sheet, at least; small ones are enlarged by a whole number, without smoothing."""
BORDER, TEXT = 2, 13


def sheet(pictures: np.ndarray[Any, Any], columns: int, rows: Sequence[str] = ()) -> Image:
    """Pictures (uint8, count × channels × height × width) in rows of ``columns``; ``rows`` are written beside them."""
    from PIL import Image, ImageDraw

    count, channels, height, width = pictures.shape
    times = max(1, SHOWN // max(height, width))
    cell_width, cell_height = width * times + BORDER, height * times + BORDER
    letters = font("regular", TEXT)
    margin = max((8 + math.ceil(letters.getlength(one)) for one in rows), default=0)
    lines = -(-count // columns)
    found = Image.new("RGB", (margin + columns * cell_width, lines * cell_height), "white")
    draw = ImageDraw.Draw(found)
    for place, picture in enumerate(pictures):
        line, column = divmod(place, columns)
        pixels = np.repeat(picture, 3, axis=0) if channels == 1 else picture
        one = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        one = one.resize((width * times, height * times), Image.Resampling.NEAREST)
        found.paste(one, (margin + column * cell_width, line * cell_height))
    for line, name in enumerate(rows):
        draw.text((4, line * cell_height + (cell_height - TEXT) // 2), name, "black", font=letters)
    return found
