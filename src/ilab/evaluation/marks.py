"""Reading a judge's reply: its own last mark, and nothing that merely looks like one.

A mark is ``{"mark": 7}`` (alone or among other keys) or ``[[7]]``. The last one inside the scale counts, for judges
weigh a mark before they give it. Not taken are footnotes (``[1]``), "10/10", marks off the scale, what stands in a
blockquote or between quotation marks inside a sentence, what was thought aloud, and what the judge repeats of the
material: the answer under test may hold a mark of its own and ask to be given it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

Better = Literal["A", "B", "neither"]

_NUMBER = r"(\d{1,4}(?:\.\d{1,4})?)"
_JSON_MARK = rf'(?:\{{[^{{}}]*)?"mark"\s*:\s*"?{_NUMBER}(?![\d.]|\s*/)"?(?:[^{{}}]*\}})?'
_MARK = re.compile(rf"\[\[\s*{_NUMBER}\s*\]\]|{_JSON_MARK}")
_BETTER = re.compile(r'\[\[\s*(A|B|neither)\s*\]\]|(?:\{[^{}]*)?"better"\s*:\s*"(A|B|neither)"\s*\}?', re.IGNORECASE)
_QUOTES = tuple("\"'`“”‘’«»„")
_FORMS: dict[str, Better] = {"a": "A", "b": "B", "neither": "neither"}


def begin(part: str, sign: str) -> str:
    """The line before a part of the material. ``sign`` is a hash that the material cannot know."""
    return f"=== begin {part} {sign} ==="


def end(part: str, sign: str) -> str:
    return f"=== end {part} {sign} ==="


def read_mark(text: str, low: int, high: int) -> float | None:
    """The last mark in ``text`` from ``low`` to ``high``, or None."""
    found = (float(match[1] or match[2]) for match in _own(_MARK, text))
    return next((mark for mark in reversed(list(found)) if low <= mark <= high), None)


def read_better(text: str) -> Better | None:
    """The last verdict of a comparison: ``{"better": "A"}`` or ``[[A]]``, B or neither; None where there is none."""
    found = [match[1] or match[2] for match in _own(_BETTER, text)]
    return _FORMS[found[-1].lower()] if found else None


def own_words(reply: str, material: Iterable[str], sign: str) -> str:
    """``reply`` without what was thought aloud and without what it repeats of the ``material``.

    Repeated are parts between the marker lines with ``sign``, whole texts that hold a mark, and single lines of them
    that do. Where the judge's own mark looks the same it goes, too: then the judge is asked again in another form.
    """
    said = reply.rpartition("</think>")[2].partition("<think>")[0]
    said = re.sub(rf"=== begin (\w+) {sign} ===.*?(?:=== end \1 {sign} ===|\Z)", "", said, flags=re.DOTALL)
    copied = set()
    for text in filter(_bears_mark, material):
        said = said.replace(text, "")
        copied |= {line.strip() for line in text.splitlines() if _bears_mark(line)}
    return "\n".join(line for line in said.splitlines() if line.strip() not in copied)


def _own(form: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The matches that are not quoted. A mark in quotation or code marks alone on its line is the judge's own."""
    for line in text.splitlines():
        if line.lstrip().startswith(">"):
            continue
        for match in form.finditer(line):
            before, after = line[: match.start()], line[match.end() :]
            quoted = before.endswith(_QUOTES) and after.startswith(_QUOTES)
            if not quoted or not (before + after).strip("".join(_QUOTES) + " \t."):
                yield match


def _bears_mark(text: str) -> bool:
    return bool(_MARK.search(text) or _BETTER.search(text))
