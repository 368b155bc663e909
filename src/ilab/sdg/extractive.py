"""Question-answer pairs read from document text by rule. This is not a language model.

`extract` takes one chunk of Markdown apart: glossaries, tables, lists and sentences, each with its place in
the text. Sentences go through `extractive_grammar` (which clause is this?) and `extractive_rules` (what can
be asked of it, in how many wordings?); glossaries, tables and lists have their own wordings here. Every
answer is copied from its evidence, so a pair can be wrong only in its question, never in its facts. What a
list is answered with is its items joined by commas.

Questions must stand alone, because they are asked without the text. So pronouns at the head of a sentence
are replaced by the subject of the sentence before, "the station" by the full name that a heading or an
earlier sentence gave it, and other bare definites ("the tower") carry the document's title. What cannot be
resolved is dropped. The rules fit reference text, tables and glossaries; how-to instructions give almost
nothing, by intent.

The filter at the end (`_good`) decides alone what is kept, so rules may be generous. No pattern can
backtrack over more than a bounded stretch: any text is handled in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ilab.sdg.extractive_entries import (
    acronym,
    cell_candidates,
    cells_of,
    existence,
    is_column,
    term_candidates,
)
from ilab.sdg.extractive_grammar import Candidate, parse
from ilab.sdg.extractive_lexicon import (
    BASE,
    DAY,
    DETERMINERS,
    MONTH,
    PLACE_PREPOSITIONS,
    VAGUE,
    plural,
    upper_first,
)
from ilab.sdg.extractive_markdown import Block, blocks, plain, sentences
from ilab.sdg.extractive_rules import clause_candidates, yes_no
from ilab.sdg.extractive_subjects import (
    GENERIC,
    NUMERIC,
    RESIDUE,
    Context,
    beside_topic,
    context_of,
    is_name,
    lowered,
    needs_topic,
    resolve,
    section_subject,
)

_LOOSE = re.compile(r"\b(?:it|its|they|their|them|this|these|those|he|she|his|her|him|we|our|us|my|i)\b", re.IGNORECASE)
_NAME = re.compile(r"[A-Z][\w'’-]{1,30}(?: (?:(?:of|the|and|de|von|for) (?=[A-Z]))?[A-Z][\w'’-]{0,30}){0,4}")
_DATE = re.compile(rf"{MONTH}|{DAY}")
_WORD = re.compile(r"[^\W_]+")
_INSTRUCTION = re.compile(
    r"(?:^|[,;:] |\b(?:and|then) )(?:click|select|see|look|go|enter|run|scroll|use|choose|open|add|find"
    r"|create|make|log|set|copy|replace|type|push|paste|install|navigate|visit|confirm|check|note|refer|verify"
    r"|ensure|complete)\b",
    re.IGNORECASE,
)
_EXPLAINING = frozenset(["why", "how", "purpose", "occasion", "yes-no", "definition"])
_MAX_QUESTION, _MAX_ANSWER = 30, 30


@dataclass(frozen=True, slots=True)
class Pair:
    """One question and its answer, the rule that made it, and the raw text at ``start`` it was read from."""

    rule: str
    question: str
    answer: str
    evidence: str
    start: int


def extract(text: str, headings: Sequence[str] = ()) -> list[Pair]:
    """The pairs read from one chunk of Markdown, in the order of the text, without repetitions.

    ``headings`` is the path of headings above the chunk, document title first. Any text is accepted; one that
    the rules cannot read gives an empty list. ``text[pair.start:][:len(pair.evidence)] ==
    pair.evidence`` holds.
    """
    path = [plain(heading) for heading in headings]
    pairs: list[Pair] = []
    context = context_of(text, path)
    items: list[Block] = []
    for block in chain(blocks(text), [Block("heading", len(text), len(text))]):
        if items and block.kind != "item":
            pairs.extend(_list_pairs(text, items, path[-1] if path else ""))
            items = []
        if block.kind == "heading":
            path = [*path[:1], block.term] if block.term and block.term not in path else path
        elif block.kind == "table":
            pairs.extend(_table_pairs(text, block, context))
        elif block.kind == "term":
            pairs.extend(_term_pairs(text, block, context))
        else:
            items += [block] if block.kind == "item" else []
            pairs.extend(
                _prose_pairs(text, block.start, block.end, context, section_subject(path), whole=block.kind == "item")
            )
    return list({(pair.question.casefold(), pair.answer.casefold()): pair for pair in reversed(pairs)}.values())[::-1]


# -- Rules over blocks
# ----------------------------------------------------------------------------------------


def _prose_pairs(
    text: str, start: int, end: int, context: Context, subject: str, *, whole: bool = False
) -> Iterator[Pair]:
    """The pairs of a paragraph's sentences; ``subject`` is what a first "It" may mean."""
    previous, polar = subject, 0
    for offset, raw in sentences(text, start, end):
        sentence = plain(raw)
        if not whole and not sentence.endswith((".", "!", '"', "”", ")")):  # a caption, a menu, or cut off
            continue
        read, previous = _sentence_candidates(sentence, context, previous)
        pairs = list(_kept(read, raw, offset, sentence))
        # Yes/no questions all have the same answer: one per paragraph, and only where nothing else was asked.
        polar += (is_polar := bool(pairs) and all(p.rule == "yes-no" for p in pairs))
        yield from () if is_polar and polar > 1 else pairs


def _sentence_candidates(sentence: str, context: Context, previous: str) -> tuple[list[Candidate], str]:
    """What can be asked of one sentence, and the subject that a pronoun in the next one stands for."""
    found: list[Candidate] = [*existence(sentence), *acronym(sentence)]
    clauses = [] if _INSTRUCTION.match(sentence) else parse(sentence)
    subject = previous
    for clause in clauses:
        first, *_, last = [*clause.subject.split(), ""] if " " not in clause.subject else clause.subject.split()
        if first.lower() in BASE and not plural(last or first):
            return found, ""  # "Use Conftest ..." is an instruction
        resolved = resolve(clause.subject, context, subject)
        if resolved is None:
            return found, ""
        subject = resolved
        named = replace(clause, subject=resolved)
        read = [
            *clause_candidates(named),
            *_cloze(f"{upper_first(resolved)} {named.said} {named.rest}.".replace('.".', '."')),
        ]
        found += _placed(read or list(yes_no(named)), resolved, context)
    if not clauses and sentence and sentence.split(maxsplit=1)[0].lower().strip(",") not in VAGUE | BASE:
        # Not understood, but complete: it can still be filled in.
        start = re.match(r"The [a-z]+(?= )", sentence)
        if (not start or context.topic) and not _INSTRUCTION.search(sentence):
            found += _placed(list(_cloze(sentence)), start.group() if start else "", context)
    return found, subject if clauses else ""


def _placed(read: list[Candidate], subject: str, context: Context) -> list[Candidate]:
    """The candidates, each once, beside the topic when their subject needs it."""
    read = list(dict.fromkeys(read))
    return list(beside_topic(iter(read), context.topic)) if context.topic and needs_topic(subject) else read


def _cloze(statement: str) -> Iterator[Candidate]:
    """The statement with a number or a name left out, at most two of each."""
    if (
        not statement.endswith((".", '."'))
        or not 5 <= len(statement.split()) <= 25
        or re.search(r"\b(?:you|we)\b", statement, re.I)
    ):
        return
    for rule, pattern in (("numeric-cloze", NUMERIC), ("name-cloze", _NAME)):
        marks = [m for m in pattern.finditer(statement) if m.start() > 0 and not _unfit(statement, m)][:2]
        for mark in marks:
            value = re.sub(r"['’]s?$", "", mark.group())
            yield rule, f"{statement[: mark.start()]}____{statement[mark.start() + len(value) :]}", value


def _unfit(statement: str, mark: re.Match[str]) -> bool:
    """Whether a name is a unit, part of a date or an abbreviation in brackets: trivial to fill in."""
    if statement[mark.start() - 1] not in ' "“‘(' or re.match(r"\.\w", statement[mark.end() :]):
        return True  # a piece of a word
    if mark.group().lower() in GENERIC:
        return True
    before = statement[: mark.start()].rstrip()
    return mark.group()[0].isalpha() and (
        before[-1:].isdigit() or before.endswith("(") or bool(_DATE.match(mark.group()))
    )


def _term_pairs(text: str, block: Block, context: Context) -> Iterator[Pair]:
    """A glossary entry both ways; the sentences after the definition are read as sentences about the term."""
    parts = list(sentences(text, block.body, block.end))
    if not parts:
        return
    stop = parts[0][0] + len(parts[0][1])
    definition = plain(parts[0][1]).rstrip(" .:;")
    term = re.sub(r" ?\([^)]*\)", "", block.term).rstrip(" :.")
    evidence = text[block.start : stop]
    yield from _kept(term_candidates(term, definition), evidence, block.start, f"{block.term} {definition}", loose=True)
    yield from _kept(acronym(block.term), evidence, block.start, block.term)
    if len(parts) > 1:
        yield from _prose_pairs(text, parts[1][0], block.end, context, term)


def _table_pairs(text: str, block: Block, context: Context) -> Iterator[Pair]:
    """Each cell from its row's label and its column's name, and each label from a value only it has."""
    rows: list[tuple[int, str, list[str]]] = []
    offset = block.start
    for line in text[block.start : block.end].splitlines(keepends=True):
        rows.append((offset, line.strip("\r\n"), cells_of(line)))
        offset += len(line)
    header, body = rows[0][2], rows[2:]
    columns = [lowered(name, context) if name[1:].islower() or " " in name else name for name in header]
    values = [[cells[i] for _, _, cells in body if i < len(cells)] for i in range(len(columns))]
    for start, raw, cells in body:
        label = cells[0] if cells else ""
        if not re.search(r"[^\W\d]", label) or len(label.split()) > 8:
            continue
        read = chain.from_iterable(
            cell_candidates(label, header[0], column, value, values[i].count(value) == 1)
            for i, (column, value) in enumerate(zip(columns, cells, strict=False))
            if i > 0 and value and is_column(column)
        )
        yield from _kept(read, raw, start, " ".join(cells), loose=True)


def _list_pairs(text: str, items: list[Block], heading: str) -> Iterator[Pair]:
    """A short list under a heading that names it in the plural."""
    words = [plain(text[item.start : item.end]).rstrip(" .;,") for item in items]
    short = 2 <= len(words) <= 8 and all(0 < len(word.split()) <= 5 for word in words)
    if not short or not plural(heading) or not is_name(heading):
        return
    raw, answer = text[items[0].start : items[-1].end], ", ".join(words)
    name = heading[0].lower() + heading[1:] if heading[1:].islower() else heading
    read = [
        ("list", q, answer)
        for q in (f"What are the {name}?", f"List the {name}.", f"Which {name} are there?", f"{name} list")
    ]
    yield from _kept(read, raw, items[0].start, answer)


# -- The filter
# -----------------------------------------------------------------------------------------------


def _kept(read: Iterable[Candidate], raw: str, start: int, source: str, *, loose: bool = False) -> Iterator[Pair]:
    """The candidates that pass `_good`, as pairs. ``source`` is the plain text an answer must stand in."""
    for rule, question, answer in read:
        question, answer = _tidy(question), _trimmed(answer)  # noqa: PLW2901
        if _good(rule, question, answer, source, loose):
            yield Pair(rule, question, answer, raw, start)


def _tidy(question: str) -> str:
    return re.sub(r"\s+([?.,])", r"\1", " ".join(question.split()))


def _trimmed(answer: str) -> str:
    answer = answer.strip(" ,;:")
    if answer.count("(") != answer.count(")"):
        answer = answer.partition("(")[0].strip()
    return answer


def _words(text: str) -> str:
    return " " + " ".join(_WORD.findall(text.casefold())) + " "


def _good(rule: str, question: str, answer: str, source: str, loose: bool) -> bool:
    """Whether a pair is worth keeping: short, free of Markdown, self-contained and copied."""
    asked, said = _words(question), _words(answer)
    words = answer.lower().split()
    if answer.lower() in {"n/a", "none", "yes", "no"}:
        return False
    if "the following" in f"{question} {answer}".lower() or (rule == "object" and re.fullmatch(r"\w+ed", answer)):
        return False
    if rule not in _EXPLAINING and not loose and _LOOSE.search(answer):
        return False
    if not said.strip() or not asked.strip() or len(question.split()) > _MAX_QUESTION or len(words) > _MAX_ANSWER:
        return False
    if (
        RESIDUE.search(question.replace("____", ""))
        or RESIDUE.search(answer)
        or (not loose and _LOOSE.search(question))
    ):
        return False
    if rule == "yes-no":
        return answer.removeprefix("Yes, ").casefold() in source.casefold()
    if said in asked or answer not in source:
        return False
    if words[0] in {
        "it",
        "its",
        "their",
        "they",
        "them",
        "this",
        "these",
        "your",
        "our",
        "his",
        "her",
        "that",
        "you",
    }:
        return False
    return words[-1] not in DETERMINERS | PLACE_PREPOSITIONS | {
        "of",
        "and",
        "or",
        "to",
        "for",
        "with",
        "by",
        "from",
        "as",
        "is",
        "are",
    }
