"""The drawn shapes of a page, through pdfium: the rules of tables, and the fills that text stands on.

A stroked path gives a rule for each of its upright or level sides, a thin filled one gives its middle line. A filled
rectangle, as far as its clip leaves it, is painted on the canvas in its colour; any other fill, a picture or a shade
is painted without colour, which never makes a text hidden.
"""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import pypdfium2.raw as pdfium

from ilab.documents.pdf.marks import Rule
from ilab.documents.pdf.paint import Box, Canvas, Colour, alike

Matrix = tuple[float, float, float, float, float, float]
IDENTITY: Matrix = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
Point = tuple[float, float]

_SIDES = 400  # a path with more is a drawing
_ALL_SIDES = 20_000  # on one page
_THIN = 3.0  # points: a filled rectangle below that is a rule
_SHORT = 5.0  # points: no rule
_FAINT = 12  # of 255: opacity below which nothing is seen
_STROKE = 1  # rendering mode that draws outlines only


class Shapes:
    """Reads paths and pictures. ``rules`` are in pdfium's coordinates."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.rules: list[Rule] = []
        self._sides = 0
        self._matrix = pdfium.FS_MATRIX()
        self._box = [ctypes.c_float() for _ in range(4)]
        self._colour = [ctypes.c_uint() for _ in range(4)]

    def matrix(self, thing: Any) -> Matrix:
        """The object's own matrix."""
        m = self._matrix
        return (m.a, m.b, m.c, m.d, m.e, m.f) if pdfium.FPDFPageObj_GetMatrix(thing, m) else IDENTITY

    def bounds(self, thing: Any) -> Box:
        """The box around the object, in the coordinates of its holder."""
        left, bottom, right, top = self._box
        if not pdfium.FPDFPageObj_GetBounds(thing, left, bottom, right, top):
            return 0.0, 0.0, 0.0, 0.0
        return left.value, bottom.value, right.value, top.value

    def unseen(self, thing: Any, mode: int, points: list[Point]) -> str:
        """Why a text at ``points`` cannot be seen for its colour, else ``""``."""
        read = pdfium.FPDFPageObj_GetStrokeColor if mode == _STROKE else pdfium.FPDFPageObj_GetFillColor
        shown = self._read_colour(read, thing)
        if shown is None:
            return ""
        colour, opacity = shown
        if opacity < _FAINT:
            return "transparent"
        grounds = [self.canvas.under(*point)[1] for point in points]
        if all(ground is not None and alike(colour, ground) for ground in grounds):
            return "in the colour of its background"
        return ""

    def picture(self, thing: Any, outer: Matrix, order: int) -> float:
        """Paint a picture or shade. Returns the part of the page that it covers."""
        box = placed(self.bounds(thing), outer)
        self.canvas.paint(box, None, order)
        left, bottom, right, top = self.canvas.box
        wide, high = min(box[2], right) - max(box[0], left), min(box[3], top) - max(box[1], bottom)
        return max(wide, 0.0) * max(high, 0.0) / ((right - left) * (top - bottom))

    def path(self, thing: Any, outer: Matrix, order: int) -> None:
        """Read the rules and fills of a path."""
        fill, stroke = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDFPath_GetDrawMode(thing, fill, stroke)
        if not fill.value and not stroke.value:
            return
        sides = pdfium.FPDFPath_CountSegments(thing)
        self._sides += sides
        if sides > _SIDES or self._sides > _ALL_SIDES:
            if fill.value:
                self.canvas.paint(placed(self.bounds(thing), outer), None, order)
            return
        matrix = multiplied(self.matrix(thing), outer)
        for points, straight in _outlines(thing, sides):
            corners = [_moved(point, matrix) for point in points]
            if stroke.value:
                self._stroke(corners, straight)
            if fill.value:
                self._fill(thing, corners, straight, order)

    def _stroke(self, corners: list[Point], straight: bool) -> None:
        """The level and upright sides of a stroked outline."""
        if straight:
            for one, other in pairwise(corners):
                self._rule(one, other)

    def _rule(self, one: Point, other: Point) -> None:
        (x0, x1), (y0, y1) = sorted((one[0], other[0])), sorted((one[1], other[1]))
        if y1 - y0 <= 1 and x1 - x0 >= _SHORT:
            self.rules.append(Rule(x0, (y0 + y1) / 2, x1, (y0 + y1) / 2))
        elif x1 - x0 <= 1 and y1 - y0 >= _SHORT:
            self.rules.append(Rule((x0 + x1) / 2, y0, (x0 + x1) / 2, y1))

    def _fill(self, thing: Any, corners: list[Point], straight: bool, order: int) -> None:
        x0, x1 = min(x for x, _ in corners), max(x for x, _ in corners)
        y0, y1 = min(y for _, y in corners), max(y for _, y in corners)
        if min(x1 - x0, y1 - y0) < _THIN:
            if x1 - x0 > y1 - y0:
                self._rule((x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2))
            else:
                self._rule(((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1))
            return
        shown = self._read_colour(pdfium.FPDFPageObj_GetFillColor, thing)
        box, clipped = self._clipped(thing, (x0, y0, x1, y1))
        if shown is not None and shown[1] < _FAINT:
            return
        plain = straight and clipped and _is_rectangle(corners) and not pdfium.FPDFPageObj_HasTransparency(thing)
        colour = shown[0] if plain and shown is not None and shown[1] == 255 else None
        self.canvas.paint(box, colour, order)

    def _clipped(self, thing: Any, box: Box) -> tuple[Box, bool]:
        """``box`` as its clip leaves it, and whether the clip is made of rectangles."""
        clip = pdfium.FPDFPageObj_GetClipPath(thing)
        simple = True
        for index in range(max(pdfium.FPDFClipPath_CountPaths(clip), 0) if clip else 0):
            count = pdfium.FPDFClipPath_CountPathSegments(clip, index)
            if not 0 < count <= 6:
                simple = False
                continue
            points = [_point(pdfium.FPDFClipPath_GetPathSegment(clip, index, at)) for at in range(count)]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            box = (max(box[0], min(xs)), max(box[1], min(ys)), min(box[2], max(xs)), min(box[3], max(ys)))
        return box, simple

    def _read_colour(self, read: Any, thing: Any) -> tuple[Colour, int] | None:
        """Colour and opacity of a plain fill or stroke, ``None`` for patterns."""
        red, green, blue, opacity = self._colour
        if not read(thing, red, green, blue, opacity):
            return None
        return (red.value, green.value, blue.value), opacity.value


def multiplied(inner: Matrix, outer: Matrix) -> Matrix:
    """The matrix that applies ``inner`` first, then ``outer``."""
    a, b, c, d, e, f = inner
    k, l, m, n, o, p = outer  # noqa: E741
    return (a * k + b * m, a * l + b * n, c * k + d * m, c * l + d * n, e * k + f * m + o, e * l + f * n + p)


def placed(box: Box, matrix: Matrix) -> Box:
    """The upright box around ``box`` moved by ``matrix``."""
    if matrix == IDENTITY:
        return box
    left, bottom, right, top = box
    corners = [_moved((x, y), matrix) for x in (left, right) for y in (bottom, top)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _moved(point: Point, matrix: Matrix) -> Point:
    a, b, c, d, e, f = matrix
    return a * point[0] + c * point[1] + e, b * point[0] + d * point[1] + f


def _outlines(path: Any, sides: int) -> list[tuple[list[Point], bool]]:
    """The closed and open outlines of a path: their corners, and whether they have no curves."""
    found: list[tuple[list[Point], bool]] = []
    points: list[Point] = []
    straight = True
    for index in range(sides):
        segment = pdfium.FPDFPath_GetPathSegment(path, index)
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_MOVETO:
            if len(points) > 1:
                found.append((points, straight))
            points, straight = [], True
        straight = straight and kind != pdfium.FPDF_SEGMENT_BEZIERTO
        points.append(_point(segment))
        if pdfium.FPDFPathSegment_GetClose(segment):
            points.append(points[0])
    if len(points) > 1:
        found.append((points, straight))
    return found


def _point(segment: Any) -> Point:
    x, y = ctypes.c_float(), ctypes.c_float()
    pdfium.FPDFPathSegment_GetPoint(segment, x, y)
    return x.value, y.value


def _is_rectangle(corners: list[Point]) -> bool:
    """Whether an outline without curves is an upright rectangle."""
    sides = list(pairwise(corners))
    level = all(abs(x0 - x1) < 0.5 or abs(y0 - y1) < 0.5 for (x0, y0), (x1, y1) in sides)
    return level and 4 <= len(corners) <= 6
