"""What ordinary text looks like in one PDF, and from that: which lines are headings, and of which level."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ilab.documents.pdf.lines import has_leaders, is_marker
from ilab.documents.pdf.marks import Line, Segment

_LARGER = 1.15  # times the body's size: a heading
_LARGER_BOLD = 1.05
_LEVELS = 4
_LONGEST = 200  # letters of a heading
_NUMBERED = re.compile(r"(?:(?:chapter|section|appendix|part)\s+)?((?:\d+|[A-Z])(?:\.\d+)*)[.:)]?\s+\S", re.IGNORECASE)
_DEEP_NUMBER = re.compile(r"\d+(?:\.\d+)+\.?\s+[^\W\d_]")
_CAPTION = re.compile(r"(?:fig(?:ure|\.)|tab(?:le|\.)|listing|abb(?:ildung|\.))\s*\d", re.IGNORECASE)
_COMPOUND = re.compile(r"[^\W\d_]+-[^\W\d_]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_MOST_WORDS = 200_000

# Size (to half points), whether bold, and how deep its number is: headings that agree in these are of one level.
Key = tuple[float, bool, int]


@dataclass
class Style:
    """Counts over a whole document, page by page; then what follows from them."""

    sizes: Counter[float] = field(default_factory=Counter)
    bold: int = 0
    mono: int = 0
    letters: int = 0
    gaps: Counter[float] = field(default_factory=Counter)
    words: set[str] = field(default_factory=set)
    compounds: set[str] = field(default_factory=set)

    def add(self, pieces: Iterable[Segment]) -> None:
        """Count the pieces of one page."""
        above: Segment | None = None
        for piece in pieces:
            count = len(piece.text)
            self.sizes[round(piece.size, 1)] += count
            self.letters += count
            self.bold += count if piece.bold else 0
            self.mono += count if piece.mono else 0
            if above and above.size == piece.size and 0 < piece.base - above.base < 2 * piece.size:
                self.gaps[round((piece.base - above.base) / piece.size, 1)] += 1
            self._add_words(piece.text, above.text if above else "")
            above = piece

    def _add_words(self, text: str, above: str) -> None:
        """Remember words, and words with a hyphen inside, but no parts of a word that was divided."""
        if len(self.words) + len(self.compounds) > _MOST_WORDS:
            return
        whole = text.rpartition(" ")[0] if text.endswith("-") else text
        whole = whole.partition(" ")[2] if above.endswith("-") else whole
        self.words.update(_LETTERS.findall(whole.lower()))
        if "-" in whole:
            self.compounds.update(_COMPOUND.findall(whole.lower()))

    @property
    def body(self) -> float:
        """The size of ordinary text in points."""
        return max(self.sizes, key=lambda size: (self.sizes[size], -size), default=10.0)

    @property
    def leading(self) -> float:
        """From line to line in ordinary text, in sizes."""
        return max(self.gaps, key=lambda gap: (self.gaps[gap], -gap), default=1.2)

    def reader(self) -> Look:
        """The same figures, worked out once."""
        half = self.letters / 2
        bold, mono = self.bold > half, self.mono > half
        return Look(self.body, self.leading, bold, mono, self.letters, self.words, self.compounds)


@dataclass(frozen=True)
class Look:
    """The ordinary text of a document: size, distance of lines in sizes, whether it is bold or of one width."""

    body: float
    leading: float
    bold: bool
    mono: bool
    letters: int
    words: set[str]
    compounds: set[str]

    def keeps_hyphen(self, head: str, tail: str) -> bool:
        """Whether the hyphen between two parts of a word at the end of a line belongs to it: ``well-known``."""
        head, tail = head.lower(), tail.lower()
        if not head.isalpha() or not tail.isalpha() or f"{head}-{tail}" in self.compounds:
            return True
        return head in self.words and tail in self.words and head + tail not in self.words

    def stands_out(self, line: Line) -> bool:
        """Whether a line looks like (a part of) a heading."""
        if line.table or has_leaders(line.text) or (line.mono and not self.mono and line.size < _LARGER * self.body):
            return False
        if line.size >= _LARGER * self.body:
            return True
        bold = line.bold and not self.bold
        if bold and line.size >= _LARGER_BOLD * self.body:
            return True
        return bold and line.size >= 0.95 * self.body and not is_marker(line.text.split(" ", 1)[0][:1])

    def is_code(self, line: Line) -> bool:
        """Whether a line is set in letters of one width where ordinary text is not."""
        return line.mono and not self.mono and not line.table

    def heading(self, text: str, line: Line, lines: int, apart: bool) -> Key | None:
        """The key of a block that is a heading, else ``None``. ``apart``: more room than usual above and below."""
        letters = sum(letter.isalpha() for letter in text)
        if letters < 2 or len(text) > _LONGEST or lines > 4 or _CAPTION.match(text) or text[-1] in ",;":
            return None
        larger = line.size >= _LARGER * self.body
        if not self.stands_out(line):
            if not (apart and lines == 1 and _DEEP_NUMBER.match(text) and text[-1] not in ".:"):
                return None
        elif not larger and (text[-1] in ".:" or lines > 2 or len(text) > 120):
            return None
        return round(line.size * 2) / 2, line.bold, depth(text)


def depth(text: str) -> int:
    """How deep a heading's number is: 3 for ``2.1.4 Care``, 1 for one without a number."""
    number = _NUMBERED.match(text)
    return number.group(1).count(".") + 1 if number else 1


def levels(keys: Iterable[Key], outline: dict[Key, int]) -> dict[Key, int]:
    """The level of every kind of heading, 1 to 4: larger, bold and less deeply numbered ones first.

    ``outline`` are levels that the document itself gives (its bookmarks); the others go between them.
    """
    found: dict[Key, int] = {}
    last = 0
    for key in sorted(set(keys), key=lambda key: (-key[0], not key[1], key[2])):
        last = min(outline.get(key, last + 1), _LEVELS)
        found[key] = last
    return found
