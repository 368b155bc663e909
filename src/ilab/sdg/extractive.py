"""Question-answer pairs read from document text by rule. This is not a language model.

`extract` takes one chunk of Markdown apart: glossaries, tables, lists and sentences, each with its place in the text.
Sentences go through `extractive_grammar` (which clause is this?) and `extractive_rules` (what can be asked of it, in
how many wordings?); glossaries, tables and lists have their own wordings here. Every answer is copied from its
evidence, so a pair can be wrong only in its question, never in its facts. What a list is answered with is its items
joined by commas.

Questions must stand alone, because they are asked without the text. So pronouns at the head of a sentence are
replaced by the subject of the sentence before, "the station" by the full name that a heading or an earlier sentence
gave it, and other bare definites ("the tower") carry the document's title. What cannot be resolved is dropped. The
rules fit reference text, tables and glossaries; how-to instructions give almost nothing, by intent.

The filter at the end (`_good`) decides alone what is kept, so rules may be generous. No pattern can backtrack over
more than a bounded stretch: any text is handled in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ilab.sdg.extractive_grammar import ADVERBS, BASE, DETERMINERS, NUMBER, PLACE_PREPOSITIONS, VAGUE, Clause, parse, plural
from ilab.sdg.extractive_markdown import Block, blocks, plain, sentences
from ilab.sdg.extractive_rules import Candidate, clause_candidates, existence, is_person, upper_first, yes_no

_RESIDUE = re.compile(r"[`|*<>{}\\#\[\]=$~]|https?:|www\.|\w\.(?:com|org|io|dev)\b|_{5,}")
_LOOSE = re.compile(r"\b(?:it|its|they|their|them|this|these|those|he|she|his|her|him|we|our|us|my|i)\b", re.IGNORECASE)
_NAME = re.compile(r"[A-Z][\w'’-]{1,30}(?: (?:(?:of|the|and|de|von|for) (?=[A-Z]))?[A-Z][\w'’-]{0,30}){0,4}")
_NUMERIC = re.compile(rf"(?<![\w.,-]){NUMBER}(?![\w-]|[.,]\d)")
_GENERIC = frozenset(
    """glossary overview introduction scope summary contents index about how what why when where who getting creating
    using key features prerequisites procedure procedures steps notes references see additional related table faq next
    appendix background general documentation guide welcome""".split()
)
_WORD = re.compile(r"[^\W_]+")
_EXPLAINING = frozenset(["why", "how", "purpose", "occasion", "yes-no", "definition"])
_MAX_QUESTION, _MAX_ANSWER = 30, 30


@dataclass(frozen=True, slots=True)
class Pair:
    """One question and its answer, with the rule that made it and the raw text (at ``start``) it was read from."""

    rule: str
    question: str
    answer: str
    evidence: str
    start: int


@dataclass(frozen=True, slots=True)
class _Context:
    """What a chunk's subjects are resolved by."""

    topic: str  # the document's or section's name, "" when no heading is a name
    names: dict[str, str]  # "station" -> "Greywater Tidal Station"
    lower: frozenset[str]  # the words that the text also writes in lower case
    upper: frozenset[str]  # the words that the text writes with a capital inside a sentence or a heading


def extract(text: str, headings: Sequence[str] = ()) -> list[Pair]:
    """The pairs read from one chunk of Markdown, in the order of the text, without repetitions.

    ``headings`` is the path of headings above the chunk, document title first. Any text is accepted; one that the
    rules cannot read gives an empty list. ``text[pair.start:][:len(pair.evidence)] == pair.evidence`` holds.
    """
    path = [plain(heading) for heading in headings]
    pairs: list[Pair] = []
    context = _context(text, path)
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
            pairs.extend(_prose_pairs(text, block.start, block.end, context, _section_subject(path)))
    return list({(pair.question.casefold(), pair.answer.casefold()): pair for pair in reversed(pairs)}.values())[::-1]


# -- Subjects ---------------------------------------------------------------------------------------------------------


def _context(text: str, path: Sequence[str]) -> _Context:
    topic = next((h for h in path if _is_name(h)), "")
    names: dict[str, str] = {}
    for name in [*re.findall(r"(?<=[a-z,] )[A-Z]\w{1,20}(?: [A-Z]\w{1,20}){1,3}", text), *path]:
        if _is_name(name) and len(name.split()) > 1:
            names.setdefault(name.split()[-1].lower(), name)
    lower = frozenset(re.findall(r"(?<![\w.!?-])[a-z][a-z-]{1,30}\b", text))
    inside = re.findall(r"(?<=[a-z,(] )[\"“*_]{0,3}([A-Z][\w-]{0,30})", text)
    return _Context(topic, names, lower, frozenset(chain(inside, *(heading.split()[1:] for heading in path), topic.split()[:1])))


def _is_name(heading: str) -> bool:
    words = heading.split()
    if not 1 <= len(words) <= 6 or words[0].lower() in _GENERIC or _RESIDUE.search(heading) or heading.endswith("?"):
        return False
    return words[0][:1].isupper() and not words[0].lower().endswith("ing") and words[0].lower() not in VAGUE


def _section_subject(path: Sequence[str]) -> str:
    last = path[-1] if path else ""
    return last if _is_name(last) and len(last.split()) <= 4 else ""


def _lowered(phrase: str, context: _Context) -> str:
    """A sentence's first words as they stand inside a sentence."""
    first, _, others = phrase.partition(" ")
    small = first.lower()
    if first[1:].isupper() or not re.fullmatch(r"[A-Z][a-z-]*", first) or others[:1].isupper():
        common = small in DETERMINERS
    elif small in DETERMINERS or small in context.lower:
        common = True
    else:
        # Never seen in lower case: a plural or a describing word is common unless it has a capital elsewhere, too.
        common = first not in context.upper and (plural(first) or bool(others) and others.split()[0] != "of")
    return phrase[:1].lower() + phrase[1:] if common else phrase


def _resolve(written: str, context: _Context, previous: str) -> str | None:
    """The subject as a question can name it."""
    words = written.split()
    first = words[0].lower()
    if len(words) == 1 and first in {"it", "they", "he", "she"}:
        fits = {"they": plural(previous) or " and " in previous, "it": not plural(previous) and not is_person(previous)}
        return previous if previous and fits.get(first, is_person(previous)) else None
    if first in {"its", "their", "his", "her"} and previous and len(words) <= 3 and len(previous.split()) <= 4:
        return f"the {' '.join(words[1:])} of {previous}"
    if first in VAGUE | PLACE_PREPOSITIONS | ADVERBS | {"and", "but", "or", "to", "for", "with", "as", "by", "from"}:
        return None
    if len(words) > 6 or _NUMERIC.match(written) or first.endswith("ly") or _RESIDUE.search(written):
        return None
    subject = _lowered(written, context)
    if _needs_topic(subject):
        name = context.names.get(words[-1].lower())
        return name or (subject if context.topic or len(words) == 3 else None)
    return subject


def _needs_topic(subject: str) -> bool:
    """Whether the subject is a bare definite: "the tower", "the sails of the mill"."""
    short = len(subject.split()) <= 3 or " of the " in subject
    return subject.lower().startswith("the ") and short and not any(w[:1].isupper() for w in subject.split()[1:])


def _beside_topic(candidates: Iterator[Candidate], topic: str) -> Iterator[Candidate]:
    """The candidates with the topic before or after the question, in turn."""
    for index, (rule, question, answer) in enumerate(candidates):
        end = question[-1] if question[-1] in ".?" else ""
        stem = question[: len(question) - len(end)]
        yield rule, f"{topic}: {question}" if index % 2 == 0 else f"{stem} ({topic}){end}", answer


# -- Rules over blocks ------------------------------------------------------------------------------------------------


def _prose_pairs(text: str, start: int, end: int, context: _Context, subject: str) -> Iterator[Pair]:
    """The pairs of a paragraph's sentences; ``subject`` is what a first "It" may mean."""
    previous, polar = subject, 0
    for offset, raw in sentences(text, start, end):
        sentence = plain(raw)
        read, previous = _sentence_candidates(sentence, context, previous)
        pairs = list(_kept(read, raw, offset, sentence))
        # Yes/no questions all have the same answer: one per paragraph, and only where nothing else was asked.
        polar += (is_polar := bool(pairs) and all(p.rule == "yes-no" for p in pairs))
        yield from () if is_polar and polar > 1 else pairs


def _sentence_candidates(sentence: str, context: _Context, previous: str) -> tuple[list[Candidate], str]:
    """What can be asked of one sentence, and the subject that a pronoun in the next one stands for."""
    found: list[Candidate] = [*existence(sentence), *_acronym(sentence)]
    clauses = parse(sentence)
    subject = previous
    for clause in clauses:
        first, *_, last = [*clause.subject.split(), ""] if " " not in clause.subject else clause.subject.split()
        if first.lower() in BASE and not plural(last or first):
            return found, ""  # "Use Conftest ..." is an instruction
        resolved = _resolve(clause.subject, context, subject)
        if resolved is None:
            return found, ""
        subject = resolved
        named = replace(clause, subject=resolved)
        read = [*clause_candidates(named), *_cloze(f"{upper_first(resolved)} {named.said} {named.rest}.")]
        found += _placed(read or list(yes_no(named)), resolved, context)
    if not clauses and sentence and sentence.split()[0].lower().strip(",") not in VAGUE | BASE:
        # Not understood, but complete: it can still be filled in.
        start = re.match(r"The [a-z]+(?= )", sentence)
        if not start or context.topic:
            found += _placed(list(_cloze(sentence)), start.group() if start else "", context)
    return found, subject if clauses else ""


def _placed(read: list[Candidate], subject: str, context: _Context) -> list[Candidate]:
    """The candidates, each once, beside the topic when their subject needs it."""
    read = list(dict.fromkeys(read))
    return list(_beside_topic(iter(read), context.topic)) if context.topic and _needs_topic(subject) else read


def _cloze(statement: str) -> Iterator[Candidate]:
    """The statement with a number or a name left out, at most two of each."""
    if not statement.endswith(".") or not 5 <= len(statement.split()) <= 25 or re.search(r"\b(?:you|we)\b", statement, re.I):
        return
    for rule, pattern in (("numeric-cloze", _NUMERIC), ("name-cloze", _NAME)):
        marks = [m for m in pattern.finditer(statement) if m.start() > 0][:2]
        for mark in marks:
            yield rule, f"{statement[: mark.start()]}____{statement[mark.end() :]}", mark.group()


def _acronym(sentence: str) -> Iterator[Candidate]:
    """"Supply-chain Levels for Software Artifacts (SLSA)": what the letters stand for."""
    for mark in re.finditer(r"((?:[\w-]{1,30} ){1,7})\(([A-Z]{2,8})\)", sentence):
        words, letters = mark.group(1).split(), mark.group(2)
        for count in range(2, len(words) + 1):
            phrase = words[-count:]
            initials = "".join(w[0] for w in phrase if w not in {"for", "of", "and", "the", "to"} and w)
            if initials.upper() == letters:
                full = " ".join(phrase)
                for question in (f"What does {letters} stand for?", f"{letters} stands for what?", f"{letters} full name",
                                 f"Tell me what {letters} stands for.", f"Expand the abbreviation {letters}."):  # fmt: skip
                    yield "acronym", question, full
                yield "acronym-reverse", f"What is the abbreviation of {full}?", letters
                yield "acronym-reverse", f"{full} is shortened to ____.", letters
                break


def _term_pairs(text: str, block: Block, context: _Context) -> Iterator[Pair]:
    """A glossary entry both ways; the sentences after the definition are read as sentences about the term."""
    parts = list(sentences(text, block.body, block.end))
    if not parts:
        return
    stop = parts[0][0] + len(parts[0][1])
    definition = plain(parts[0][1]).rstrip(" .:;")
    term = re.sub(r" ?\([^)]*\)", "", block.term).rstrip(" :.")
    evidence = text[block.start : stop]
    yield from _kept(_term_candidates(term, definition), evidence, block.start, f"{block.term} {definition}", loose=True)
    yield from _kept(_acronym(block.term), evidence, block.start, block.term)
    if len(parts) > 1:
        yield from _prose_pairs(text, parts[1][0], block.end, context, term)


def _term_candidates(term: str, definition: str) -> Iterator[Candidate]:
    if not definition or not re.match(r"[\w\"“(]", definition) or definition.split()[0].lower() in BASE | {"to"}:
        return
    article = re.match(r"(an?|one) ", definition, re.IGNORECASE)
    named = f"{'an' if term[0] in 'aeio' else 'a'} {term}" if article and term.islower() and not plural(term) else term
    if term.endswith("ing") or len(term.split()) > 6:
        named = term
    be = "are" if plural(term) and not article else "is"
    for question in (f"What {be} {named}?", f"Define {term}.", f"What does {term} mean?", f"Tell me what {named} {be}.",
                     f"{term} meaning", f"Explain the term {term}."):  # fmt: skip
        yield "glossary", question, definition
    opening = definition.split()[0]
    low = definition[0].lower() + definition[1:] if opening in {"A", "An", "The", "One"} or len(opening) > 3 and opening[1:].islower() else definition
    short = " ".join(low.split()[:22])
    if len(low.split()) > 22:
        short = re.split(r"[,;]", low)[0]
    yield "term", f"Which term means: {short}?", term
    yield "term", f"What do you call {short}?", term
    yield "term", f"What is the name for {short}?", term
    yield "term", f"____: {short}.", term


def _table_pairs(text: str, block: Block, context: _Context) -> Iterator[Pair]:
    """Each cell from its row's label and its column's name, and each row's label from a value that only it has."""
    rows: list[tuple[int, str, list[str]]] = []
    offset = block.start
    for line in text[block.start : block.end].splitlines(keepends=True):
        rows.append((offset, line.strip("\r\n"), _cells(line)))
        offset += len(line)
    header, body = rows[0][2], rows[2:]
    columns = [_lowered(name, context) if name[1:].islower() or " " in name else name for name in header]
    values = [[cells[i] for _, _, cells in body if i < len(cells)] for i in range(len(columns))]
    for start, raw, cells in body:
        label = cells[0] if cells else ""
        if not label or len(label.split()) > 8:
            continue
        read = chain.from_iterable(
            _cell_candidates(label, header[0], column, value, values[i].count(value) == 1)
            for i, (column, value) in enumerate(zip(columns, cells, strict=False))
            if i > 0 and column and value
        )
        yield from _kept(read, raw, start, " ".join(cells), loose=True)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [plain(cell).replace("\0", "|") for cell in inner.replace("\\|", "\0").split("|")]


def _cell_candidates(label: str, kind: str, column: str, value: str, unique: bool) -> Iterator[Candidate]:
    low = column[0].lower() + column[1:] if column[1:].islower() else column
    answer = value.rstrip(" .")
    be = "are" if plural(low) else "is"
    for question in (f"What {be} the {low} of {label}?", f"{label} {low}", f"For {label}, what {be} the {low}?",
                     f"Tell me the {low} of {label}.", f"The {low} of {label} {be} ____."):  # fmt: skip
        yield "table", question, answer
    if unique and len(answer.split()) <= 12:
        thing = kind[0].lower() + kind[1:] if kind[1:].islower() or " " in kind else kind or "row"
        yield "table-reverse", f"Which {thing} has the {low} {answer}?", label
        yield "table-reverse", f"{upper_first(low)} {answer}: which {thing}?", label
        yield "table-reverse", f"____ has the {low} {answer}.", label


def _list_pairs(text: str, items: list[Block], heading: str) -> Iterator[Pair]:
    """A short list under a heading that names it in the plural."""
    words = [plain(text[item.start : item.end]).rstrip(" .;,") for item in items]
    short = 2 <= len(words) <= 8 and all(0 < len(word.split()) <= 5 for word in words)
    if not short or not plural(heading) or not _is_name(heading):
        return
    raw, answer = text[items[0].start : items[-1].end], ", ".join(words)
    name = heading[0].lower() + heading[1:] if heading[1:].islower() else heading
    read = [("list", q, answer) for q in (f"What are the {name}?", f"List the {name}.", f"Which {name} are there?", f"{name} list")]
    yield from _kept(read, raw, items[0].start, answer)


# -- The filter -------------------------------------------------------------------------------------------------------


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
    """Whether a pair is worth keeping: short, free of Markdown, self-contained, copied, and not its own answer."""
    asked, said = _words(question), _words(answer)
    words = answer.lower().split()
    if rule not in _EXPLAINING and not loose and _LOOSE.search(answer):
        return False
    if not said.strip() or not asked.strip() or len(question.split()) > _MAX_QUESTION or len(words) > _MAX_ANSWER:
        return False
    if _RESIDUE.search(question.replace("____", "")) or _RESIDUE.search(answer) or (not loose and _LOOSE.search(question)):
        return False
    if rule == "yes-no":
        return answer.removeprefix("Yes, ").casefold() in source.casefold()
    if said in asked or answer not in source:
        return False
    if words[0] in {"it", "its", "their", "they", "them", "this", "these", "your", "our", "his", "her", "that", "you"}:
        return False
    return words[-1] not in DETERMINERS | PLACE_PREPOSITIONS | {"of", "and", "or", "to", "for", "with", "by", "is", "are"}
