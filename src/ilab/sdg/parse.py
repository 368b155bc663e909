"""Reading a model's answer by tags, as models really write them.

Asked for ``[QUESTION]…[/QUESTION]``, models also write ``<question>``, ``**Question:**``, ``Question 2:``, leave
out closing tags, or say ``[END]``. All of these are read alike: the text is cut at every marker, each piece
belongs to the marker before it, and a record is complete when every wanted tag has text. A closing tag matters for
one thing only: of an answer that was cut off, a last piece without it is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def parse_tags(text: str, tags: Sequence[str], *, truncated: bool = False) -> list[dict[str, str]]:
    """The complete records in ``text``, each a mapping of lower-cased tag to stripped text, in order.

    ``truncated`` says that the answer was cut off: a record whose last piece was never closed is left out.
    """
    text = THINKING.sub("", text)
    wanted = [tag.lower() for tag in tags]
    records = _records(text, _markers(wanted, short_forms=False), wanted, truncated)
    # "Q:" and "A:" are looked for only when nothing else is there: "A:" may as well be an option of a question.
    return records or _records(text, _markers(wanted, short_forms=True), wanted, truncated)


def _markers(tags: Sequence[str], *, short_forms: bool) -> re.Pattern[str]:
    names = {tag: "|".join([re.escape(tag), *([re.escape(tag[0])] if short_forms else [])]) for tag in tags}
    any_name = "|".join(names.values())
    opening = "|".join(
        # [TAG] or <TAG>, or at the start of a line: **Tag 2:**, ## Tag, 1. Tag:
        rf"(?P<{_group(tag)}>[\[<]\s*(?:{name})\s*\d*\s*[\]>]:?"
        rf"|^[ \t]*(?:\d+[.)][ \t]*)?(?:\#+[ \t]*)?[*_]*(?:{name})[ \t]*\d*[*_]*[ \t]*[:：][*_]*"
        rf"|^[ \t]*\#+[ \t]*(?:{name})[ \t]*\d*[ \t]*$)"
        for tag, name in names.items()
    )
    end = rf"end(?:[ _-]*(?:of[ _-]*)?(?:{any_name}))?"
    closing = rf"(?P<closing>[\[<]\s*(?:/\s*(?:{any_name})?|{end})\s*[\]>])"
    return re.compile(f"{closing}|{opening}", re.IGNORECASE | re.MULTILINE)


def _group(tag: str) -> str:
    return "tag_" + re.sub(r"\W", "_", tag)


def _records(text: str, markers: re.Pattern[str], tags: Sequence[str], truncated: bool) -> list[dict[str, str]]:
    by_group = {_group(tag): tag for tag in tags}
    found = list(markers.finditer(text))
    records: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for index, marker in enumerate(found):
        tag = by_group.get(marker.lastgroup or "")
        if tag is None:
            continue
        last = index + 1 == len(found)
        piece = text[marker.end() :] if last else text[marker.end() : found[index + 1].start()]
        value = piece.strip().strip("*").strip()
        if tag in current:  # a new record begins
            current = {}
        if value and not (last and truncated):
            current[tag] = value
        if len(current) == len(tags):
            records.append(current)
            current = {}
    return records
