"""One page of a PDF through pdfium: visible words with their places, ruled lines, and text that nobody sees.

pdfium gives letters and drawing objects. The objects are walked in drawing order, once: text objects tell font, size
and visibility, filled shapes what lies under and over text, thin or stroked ones the rules of tables. Then the letters
are read in runs without blanks; per run three calls tell its place. A text counts as hidden when it is drawn in
invisible mode or without opacity, under 1 point, in the colour of what lies under it, off the page, or if an opaque
rectangle was drawn over it. On a scanned page (a picture covers it, and almost all text is invisible) the text layer is
what the reader sees as picture, and counts.

Coordinates here are pdfium's (``y`` upwards); they leave as those of ``pdf_marks``, upright for the direction in which
the text runs. ISO 32000-1: 8.3 (matrices), 8.5 (paths), 9.3.6 (rendering mode), 9.8.2 (font flags).
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as pdfium

from ilab.documents.pdf.marks import Rule, Sheet, Word
from ilab.documents.pdf.paint import Canvas
from ilab.documents.pdf.shapes import IDENTITY, Matrix, Shapes, multiplied, placed
from ilab.errors import InputError

MAX_CHARACTERS = 500_000  # on one page
MAX_OBJECTS = 200_000  # on one page
_DEPTH = 8  # forms inside forms
_SMALLEST, _LARGEST = 1.0, 10_000.0  # points
_WIDEST = 200_000.0  # points, of a page
_SCAN = 0.9  # of the letters, invisible: the text layer of a scanned page
_INVISIBLE, _FILL_AND_STROKE = 3, 2  # rendering modes
_FIXED_PITCH, _FORCE_BOLD, _HEAVY = 1, 1 << 18, 700
_BOLD = re.compile(r"bold|black|heavy|demi|semib|[-,]bd\b|medi$|^(?:cm|sf|ec|lm)\w{0,3}b[x\d]", re.IGNORECASE)
_MONO = re.compile(
    r"mono|courier|consol|typewriter|menlo|fixed|nimbusmon|code|^(?:cm|sf|ec|lm)\w{0,3}tt", re.IGNORECASE
)
_WORD = re.compile(r"\S+")
_HYPHENS = str.maketrans({"\x02": "-", "\ufffe": "-"})  # how pdfium marks a hyphen at a line's end

Turn = int  # quarter turns, counter-clockwise, in which text runs
OFF, INVISIBLE = "off the page", "invisible"


@dataclass(frozen=True)
class _Ink:
    """How a text object is drawn. ``unseen`` says why nobody sees it, else ``""``."""

    size: float
    turn: Turn
    bold: bool
    mono: bool
    unseen: str


def read_page(page: Any) -> tuple[list[Sheet], int]:
    """What stands on an open page, and how many letters and objects it has.

    The first sheet holds the text of the direction that most letters have, the others what runs in other directions.
    Raises ``InputError`` for a page beyond the limits.
    """
    letters = pdfium.FPDFText_LoadPage(page)
    if not letters:
        raise InputError("its text cannot be read")
    try:
        return _Reader(page, letters).sheets()
    finally:
        pdfium.FPDFText_ClosePage(letters)


class _Reader:
    def __init__(self, page: Any, letters: Any) -> None:
        self.page = page
        self.letters = letters
        self.box = _box(page)
        self.canvas = Canvas(self.box)
        self.shapes = Shapes(self.canvas)
        self.fonts: dict[int, tuple[bool, bool]] = {}
        self.inks: dict[int, _Ink] = {}
        self.texts: list[tuple[int, int, list[tuple[float, float]]]] = []  # object, order, points on it
        self.objects = 0
        self.scanned = False

    def sheets(self) -> tuple[list[Sheet], int]:
        self._walk(self.page, IDENTITY, 0)
        self._find_covered()
        count = pdfium.FPDFText_CountChars(self.letters)
        if count > MAX_CHARACTERS:
            raise InputError(f"has {count} letters on one page; at most {MAX_CHARACTERS} are read")
        seen: dict[Turn, list[Word]] = {}
        unseen: dict[str, list[Word]] = {}
        for word, turn, why in self._words(max(count, 0)):
            if why:
                unseen.setdefault(why, []).append(word)
            else:
                seen.setdefault(turn, []).append(word)
        invisible = _letters(unseen.get(INVISIBLE, []))
        if self.scanned and invisible >= _SCAN * (invisible + sum(_letters(words) for words in seen.values())):
            for word in unseen.pop(INVISIBLE, []):
                seen.setdefault(0, []).append(word)
        hidden = [(why, _joined(words)) for why, words in sorted(unseen.items())]
        return self._upright(seen, hidden), max(count, 0) + self.objects

    def _upright(self, seen: dict[Turn, list[Word]], hidden: list[tuple[str, str]]) -> list[Sheet]:
        turns = sorted(seen, key=lambda turn: (-_letters(seen[turn]), turn)) or [0]
        found = []
        for turn in turns:
            wide, high = self.box[2] - self.box[0], self.box[3] - self.box[1]
            size = (high, wide) if turn % 2 else (wide, high)
            main = turn == turns[0]
            rules = [self._turned(rule, turn) for rule in self.shapes.rules] if main else []
            found.append(Sheet(*size, seen.get(turn, []), rules, hidden if main else []))
        return found

    def _words(self, count: int) -> Iterator[tuple[Word, Turn, str]]:
        """The words in pdfium's order. A run in which the text object changes is several words, glued."""
        read = pdfium.FPDFText_GetUnicode
        text = "".join([chr(min(read(self.letters, index), 0x10FFFF)) for index in range(count)])
        for match in _WORD.finditer(text):
            start, end = match.span()
            first, last = self._object(start), self._object(end - 1)
            if first == last:
                yield self._word(text, start, end, first, False)
                continue
            begin, owner = start, first
            for index in range(start + 1, end):
                other = self._object(index)
                if other != owner:
                    yield self._word(text, begin, index, owner, begin > start)
                    begin, owner = index, other
            yield self._word(text, begin, end, owner, begin > start)

    def _object(self, index: int) -> int:
        found = pdfium.FPDFText_GetTextObject(self.letters, index)
        return ctypes.addressof(found.contents) if found else 0

    def _word(self, text: str, start: int, end: int, owner: int, glued: bool) -> tuple[Word, Turn, str]:
        ink = self.inks.get(owner) or _Ink(10.0, 0, False, False, "")
        x, y = ctypes.c_double(), ctypes.c_double()
        box = pdfium.FS_RECTF()
        pdfium.FPDFText_GetCharOrigin(self.letters, start, x, y)
        pdfium.FPDFText_GetLooseCharBox(self.letters, end - 1, box)
        size, unseen = ink.size, ink.unseen
        if size < 3 * _SMALLEST:  # a bitmap font may have a unit of its own: what counts is what is drawn
            size = max(size, self._drawn(start, ink.turn))
            unseen = unseen or ("smaller than a point" if size < _SMALLEST else "")
        x0, base = self._point(x.value, y.value, ink.turn)
        ends = [self._point(box.left, box.bottom, ink.turn), self._point(box.right, box.top, ink.turn)]
        x1 = max(end[0] for end in ends)
        high = self.box[3] - self.box[1] if ink.turn % 2 == 0 else self.box[2] - self.box[0]
        wide = self.box[2] - self.box[0] if ink.turn % 2 == 0 else self.box[3] - self.box[1]
        if not (x1 >= 0 and x0 <= wide and base >= 0 and base - size <= high):  # so put, for what is no number
            unseen = unseen or OFF
        written = text[start:end].translate(_HYPHENS)
        return Word(written, x0, max(x1, x0), base, size, ink.bold, ink.mono, glued), ink.turn, unseen

    def _drawn(self, index: int, turn: Turn) -> float:
        left, right, bottom, top = (ctypes.c_double() for _ in range(4))
        if not pdfium.FPDFText_GetCharBox(self.letters, index, left, right, bottom, top):
            return 0.0
        return abs(right.value - left.value if turn % 2 else top.value - bottom.value)

    def _point(self, x: float, y: float, turn: Turn) -> tuple[float, float]:
        """A point of the page as seen when text that runs in ``turn`` is upright."""
        left, bottom, right, top = self.box
        if turn == 0:
            return x - left, top - y
        if turn == 1:
            return y - bottom, x - left
        return (right - x, y - bottom) if turn == 2 else (top - y, right - x)

    def _turned(self, rule: Rule, turn: Turn) -> Rule:
        one, other = self._point(rule.x0, rule.y0, turn), self._point(rule.x1, rule.y1, turn)
        return Rule(min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1]))

    def _walk(self, holder: Any, matrix: Matrix, depth: int) -> None:
        """Look at the objects of a page, or of a form on it, in drawing order."""
        form = depth > 0
        count = pdfium.FPDFFormObj_CountObjects(holder) if form else pdfium.FPDFPage_CountObjects(holder)
        take = pdfium.FPDFFormObj_GetObject if form else pdfium.FPDFPage_GetObject
        if self.objects + count > MAX_OBJECTS:
            raise InputError(f"has a page of more than {MAX_OBJECTS} drawn objects")
        for index in range(count):
            thing = take(holder, index)
            self.objects += 1
            kind = pdfium.FPDFPageObj_GetType(thing)
            if kind == pdfium.FPDF_PAGEOBJ_TEXT:
                self._text(thing, matrix)
            elif kind == pdfium.FPDF_PAGEOBJ_PATH:
                self.shapes.path(thing, matrix, self.objects)
            elif kind == pdfium.FPDF_PAGEOBJ_FORM and depth < _DEPTH:
                self._walk(thing, multiplied(self.shapes.matrix(thing), matrix), depth + 1)
            elif kind in (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_SHADING):
                covered = self.shapes.picture(thing, matrix, self.objects)
                self.scanned = self.scanned or (kind == pdfium.FPDF_PAGEOBJ_IMAGE and covered > 0.8)

    def _text(self, thing: Any, outer: Matrix) -> None:
        a, b, c, d, _, _ = multiplied(self.shapes.matrix(thing), outer)
        size = ctypes.c_float()
        pdfium.FPDFTextObj_GetFontSize(thing, size)
        if size.value < 0:
            a, b = -a, -b
        turn = (0 if a > 0 else 2) if abs(a) >= abs(b) else (1 if b > 0 else 3)
        points = _along(placed(self.shapes.bounds(thing), outer), turn)
        mode = pdfium.FPDFTextObj_GetTextRenderMode(thing)
        bold, mono = self._font(pdfium.FPDFTextObj_GetFont(thing))
        ink = _Ink(
            size=min(_LARGEST, abs(size.value) * (c * c + d * d) ** 0.5),
            turn=turn,
            bold=bold or mode == _FILL_AND_STROKE,
            mono=mono,
            unseen=INVISIBLE if mode == _INVISIBLE else self.shapes.unseen(thing, mode, points),
        )
        address = ctypes.addressof(thing.contents)
        self.inks[address] = ink
        if not ink.unseen:
            self.texts.append((address, self.objects, points))

    def _find_covered(self) -> None:
        """Mark texts over which an opaque rectangle was drawn later."""
        for address, order, points in self.texts:
            tops = [self.canvas.under(*point) for point in points]
            if all(top > order and colour is not None for top, colour in tops):
                old = self.inks[address]
                self.inks[address] = _Ink(old.size, old.turn, old.bold, old.mono, "covered")

    def _font(self, font: Any) -> tuple[bool, bool]:
        """Whether a font is bold, and whether all its letters are of one width."""
        address = ctypes.addressof(font.contents) if font else 0
        if address not in self.fonts:
            name = ctypes.create_string_buffer(128)
            flags = weight = 0
            if font:
                pdfium.FPDFFont_GetBaseFontName(font, name, len(name))
                flags, weight = max(pdfium.FPDFFont_GetFlags(font), 0), pdfium.FPDFFont_GetWeight(font)
            shown = name.value.decode("latin-1").rpartition("+")[2]
            bold = bool(_BOLD.search(shown)) or bool(flags & _FORCE_BOLD) or weight >= _HEAVY
            self.fonts[address] = (bold, bool(_MONO.search(shown)) or bool(flags & _FIXED_PITCH))
        return self.fonts[address]


def _box(page: Any) -> tuple[float, float, float, float]:
    """The part of the page that is shown: left, bottom, right, top."""
    box = pdfium.FS_RECTF()
    found = pdfium.FPDF_GetPageBoundingBox(page, box)
    if found and 0 < box.right - box.left < _WIDEST and 0 < box.top - box.bottom < _WIDEST:
        return box.left, box.bottom, box.right, box.top
    return 0.0, 0.0, 612.0, 792.0


def _along(box: tuple[float, float, float, float], turn: Turn) -> list[tuple[float, float]]:
    """Three points along the middle of a line of text."""
    left, bottom, right, top = box
    x, y = (left + right) / 2, (bottom + top) / 2
    if turn % 2:
        return [(x, bottom + (top - bottom) * part) for part in (0.1, 0.5, 0.9)]
    return [(left + (right - left) * part, y) for part in (0.1, 0.5, 0.9)]


def _letters(words: list[Word]) -> int:
    return sum(len(word.text) for word in words)


def _joined(words: list[Word]) -> str:
    return "".join(("" if word.glued else " ") + word.text for word in words).strip()
