"""What colour lies under a text, and what was painted over it later: a coarse picture of a page's filled areas.

The page is a grid of cells. Painting writes the number of the fill into the cells whose middle it covers; a look-up
takes one cell. So both cost the same however many fills there are, and nothing is rendered.
"""

from __future__ import annotations

from array import array

Box = tuple[float, float, float, float]  # left, bottom, right, top
Colour = tuple[int, int, int]  # red, green, blue in 0..255

PAPER: Colour = (255, 255, 255)
_CELLS = 200  # in each direction: 3 by 4 points on a page of letter size
_NEAR = 24  # of 255: colours that differ less in every channel look alike


def alike(one: Colour, other: Colour) -> bool:
    """Whether text of one colour cannot be seen on the other."""
    return all(abs(a - b) <= _NEAR for a, b in zip(one, other, strict=True))


class Canvas:
    """The fills of one page, painted in drawing order. Colour ``None`` is a picture, pattern or odd shape."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.fills: list[tuple[int, Colour | None]] = [(-1, PAPER)]
        self._cells: array[int] | None = None
        self._width = max(box[2] - box[0], 1.0) / _CELLS
        self._height = max(box[3] - box[1], 1.0) / _CELLS

    def paint(self, box: Box, colour: Colour | None, order: int) -> None:
        """Fill ``box``. ``order`` is the place of the fill in the drawing order."""
        left, right = self._column(box[0]), self._column(box[2])
        bottom, top = self._row(box[1]), self._row(box[3])
        if right <= left or top <= bottom:
            return
        if self._cells is None:
            self._cells = array("I", bytes(4 * _CELLS * _CELLS))
        row = array("I", [len(self.fills)]) * (right - left)
        self.fills.append((order, colour))
        for at in range(bottom * _CELLS, top * _CELLS, _CELLS):
            self._cells[at + left : at + right] = row

    def under(self, x: float, y: float) -> tuple[int, Colour | None]:
        """Order and colour of the latest fill at a point; ``(-1, PAPER)`` where nothing was painted."""
        if self._cells is None:
            return self.fills[0]
        column = int(min(_CELLS - 1, max(0.0, (x - self.box[0]) / self._width)))
        row = int(min(_CELLS - 1, max(0.0, (y - self.box[1]) / self._height)))
        return self.fills[self._cells[row * _CELLS + column]]

    def _column(self, x: float) -> int:
        return round(min(_CELLS, max(0.0, (x - self.box[0]) / self._width)))  # in this order: x may be no number

    def _row(self, y: float) -> int:
        return round(min(_CELLS, max(0.0, (y - self.box[1]) / self._height)))
