"""Cuts documents into chunks: passages of at most so many tokens, each a verbatim span under one heading.

A section (the text between two headings) is never merged with another, so an edit stays in its section. One that
is over the budget is cut where it hurts least: between blocks (paragraphs, lists, tables, code), then between list
items, rows and lines, then sentences, then words, at last inside a word. Consecutive parts are packed together
while they fit. Heading lines are not part of the text; they are the chunk's ``heading`` path. A table that fits stays
whole; the parts of one that does not are rows, without the header repeated, for a chunk is verbatim.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ilab.data import Chunk, Document, digest_text, short
from ilab.documents.markdown import Block, blocks, is_list_item, lines
from ilab.errors import InputError

Span = tuple[int, int]
Count = Callable[[str], int]

_SENTENCE_END = re.compile(r"[.!?][\"')\]’”»]{0,3}\s(?![a-z])|[。！？]")
_WORD_END = re.compile(r"\s(?=\S)")


def estimate_tokens(text: str) -> int:
    """The number of tokens without a tokenizer: a quarter of the UTF-8 bytes, rounded up.

    English prose has 4 to 4.5 bytes a token under the usual tokenizers of 32,000 to 150,000 entries.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def chunk(
    document: Document, max_tokens: int, count: Count = estimate_tokens, max_words: int | None = None
) -> list[Chunk]:
    """The chunks of one document in order: ``document.text[start:end] == chunk.text``, ``tokens <= max_tokens``.

    ``count`` gives the number of tokens of a text; with ``max_words`` a chunk has at most so many words (runs without
    blanks) as well. Only a single character that is counted above the budget may pass it. Sections that hold nothing
    but their heading give no chunk. Raises ``InputError`` for a limit below 1.
    """
    if max_tokens < 1:
        raise InputError(f"a chunk of {max_tokens} tokens holds nothing", hint="give a chunk size of at least 1")
    if max_words is not None and max_words < 1:
        raise InputError(f"a chunk of {max_words} words holds nothing", hint="give a chunk size of at least 1")
    cutter = _Cutter(document.text, max_tokens, count, max_words)
    found = []
    for heading, body in _sections(document.text):
        for start, end in cutter.cut(body):
            text = document.text[start:end]
            found.append(
                Chunk(
                    id=short(digest_text(text)),
                    leaf=document.leaf,
                    document=document.id,
                    source=document.source,
                    heading=heading,
                    page=max(bisect_right(document.pages, start), 1) if document.pages else None,
                    span=(start, end),
                    text=text,
                    tokens=count(text),
                )
            )
    return _numbered(found)


def chunk_documents(
    documents: Iterable[Document],
    max_tokens: int | Mapping[str, int],
    count: Count = estimate_tokens,
    max_words: int | None = None,
) -> list[Chunk]:
    """The chunks of many documents, with ids that are unique within each leaf.

    ``max_tokens`` is one budget for all, or one for each leaf's path. See :func:`chunk` for the other limits.
    """
    parts: list[Chunk] = []
    for document in documents:
        budget = max_tokens if isinstance(max_tokens, int) else max_tokens[document.leaf]
        parts += chunk(document, budget, count, max_words)
    return _numbered(parts)


def _numbered(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Equal texts in one leaf get ``-2``, ``-3`` … behind their id, in order."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for part in chunks:
        identity = part.id.partition("-")[0]
        seen[part.leaf, identity] += 1
        times = seen[part.leaf, identity]
        wanted = identity if times == 1 else f"{identity}-{times}"
        found.append(part if part.id == wanted else part.model_copy(update={"id": wanted}))
    return found


def _sections(text: str) -> list[tuple[tuple[str, ...], list[Block]]]:
    """Heading path and blocks of every section that holds any."""
    path: list[tuple[int, str]] = []
    sections: list[tuple[tuple[str, ...], list[Block]]] = [((), [])]
    for block in blocks(text):
        if block.kind == "heading":
            path = [*((level, title) for level, title in path if level < block.level), (block.level, block.title)]
            sections.append((tuple(title for _, title in path), []))
        else:
            sections[-1][1].append(block)
    return [section for section in sections if section[1]]


class _Cutter:
    def __init__(self, text: str, budget: int, count: Count, words: int | None) -> None:
        self.text = text
        self.budget = budget
        self.count = count
        self.words = words

    def cut(self, body: list[Block]) -> list[Span]:
        """The spans of one section's chunks, without blanks at their ends."""
        kinds = {(block.start, block.end): block.kind for block in body}
        spans: list[Span] = []
        for start, end in self._packed(list(kinds)):
            if self._fits(start, end):
                spans.append((start, end))
            elif kinds[start, end] == "paragraph":
                spans += self._finer(start, end, (self._list_items, self._sentences, self._words))
            else:
                spans += self._finer(start, end, (self._lines, self._sentences, self._words))
        trimmed = (self._trim(start, end) for start, end in spans)
        return [(start, end) for start, end in trimmed if start < end]

    def _finer(self, start: int, end: int, ways: tuple[Callable[[int, int], list[Span]], ...]) -> list[Span]:
        """Cut the span in the first way, and what is still too long in the ways after it."""
        if not ways:
            return self._hard(start, end)
        spans: list[Span] = []
        for part in self._packed(ways[0](start, end)):
            spans += [part] if self._fits(*part) else self._finer(*part, ways[1:])
        return spans

    def _fits(self, start: int, end: int) -> bool:
        part = self.text[start:end].strip()
        if not part:
            return True
        if self.words is not None and len(part.split(None, self.words)) > self.words:
            return False
        return self.count(part) <= self.budget

    def _trim(self, start: int, end: int) -> Span:
        part = self.text[start:end]
        return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))

    def _packed(self, parts: list[Span]) -> list[Span]:
        """Join consecutive parts while they fit. A part that alone is too long stays alone."""
        ends = [end for _, end in parts]
        spans: list[Span] = []
        first = 0
        while first < len(parts):
            last = self._furthest(parts[first][0], ends, first)
            spans.append((parts[first][0], ends[last]))
            first = last + 1
        return spans

    def _hard(self, start: int, end: int) -> list[Span]:
        """Cut inside a word, at least one character a piece."""
        ends = range(start + 1, end + 1)
        spans: list[Span] = []
        first = 0
        while first < len(ends):
            last = self._furthest(start + first, ends, first)
            spans.append((start + first, ends[last]))
            first = last + 1
        return spans

    def _furthest(self, start: int, ends: Sequence[int], first: int) -> int:
        """The greatest index from ``first`` whose end fits with ``start``, by doubling steps, then halving.

        More text should never count fewer tokens; where it does, the answer still fits (or is ``first``).
        """
        good, step = first, 1
        while good + step < len(ends) and self._fits(start, ends[good + step]):
            good, step = good + step, step * 2
        while step > 1:
            step //= 2
            if good + step < len(ends) and self._fits(start, ends[good + step]):
                good += step
        return good

    def _list_items(self, start: int, end: int) -> list[Span]:
        begins = [line.start for line in lines(self.text, start, end) if is_list_item(line.text)]
        return _between(start, begins, end)

    def _lines(self, start: int, end: int) -> list[Span]:
        return [(line.start, line.end) for line in lines(self.text, start, end)]

    def _sentences(self, start: int, end: int) -> list[Span]:
        return _between(start, (match.end() for match in _SENTENCE_END.finditer(self.text, start, end)), end)

    def _words(self, start: int, end: int) -> list[Span]:
        return _between(start, (match.end() for match in _WORD_END.finditer(self.text, start, end)), end)


def _between(start: int, cuts: Iterable[int], end: int) -> list[Span]:
    """The spans that the positions in ``cuts`` divide ``start``..``end`` into."""
    spans = []
    for cut in cuts:
        if start < cut < end:
            spans.append((start, cut))
            start = cut
    return [*spans, (start, end)]
