"""What is probably not meant, in leaves that can be read: warnings for the author, never errors.

    personal-data       an e-mail address, telephone number or bank account in a seed example
    no-attribution      no attribution.txt beside the leaf
    no-licence          an attribution.txt that names no licence
    answer-not-found    knowledge: not one content word of the answer stands in the context
    no-question         knowledge: a question without a question mark, a question word or a request
    near-duplicate      a seed example that says what an earlier one of the leaf says
    leak                a seed question that is also held out in an eval.yaml
    long-context        a context over 500 words
    long-pair           a question and answer over 250 words together
    no-document         a local document pattern that fits no file
    file                a file or folder that is passed over

Word lists are English; a question mark of any script counts. Formatting is never a matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ilab.data import Item, Leaf, Place, QuestionAnswer, SeedExample
from ilab.taxonomy.similar import NearCopies, words

MOST_CONTEXT, MOST_PAIR = 500, 250  # words; the sizes that the InstructLab taxonomy's guidelines recommend

Documents = Mapping[str, Mapping[str, Sequence[str]]]
"""Path of a leaf -> local document pattern -> the files it fits."""


@dataclass(frozen=True)
class LintWarning:
    """``code`` is one of those above, ``hint`` what the author may do."""

    place: Place
    code: str
    message: str
    hint: str = ""


def lint(leaves: Sequence[Leaf], documents: Documents | None = None) -> list[LintWarning]:
    """All warnings about ``leaves``, by file and line. Without ``documents`` their patterns are not looked at."""
    found = [warning for leaf in leaves for warning in _leaf(leaf)]
    found += _leaks(leaves)
    for leaf in leaves:
        for ref in leaf.documents:
            for pattern, files in (documents or {}).get(leaf.path, {}).items():
                if not files and pattern in ref.patterns and ref.repo is None:
                    hint = "put the document there, or correct the path (relative to the folder of qna.yaml)"
                    found.append(LintWarning(ref.place, "no-document", f"`{pattern[:80]}` fits no file", hint))
    return sorted(found, key=lambda warning: (warning.place.file, warning.place.line, warning.code, warning.message))


def passed_over(lines: Iterable[str]) -> list[LintWarning]:
    """The loader's warnings about files (``Layout.warnings``: ``path: what``)."""
    parted = (line.rpartition(": ") for line in lines)
    return [LintWarning(Place(file=file, line=1), "file", message) for file, _, message in parted]


def _leaf(leaf: Leaf) -> Iterator[LintWarning]:
    start = Place(file=leaf.place.file, line=1)
    if not leaf.attribution:
        hint = "write attribution.txt beside it: title of the work, link, licence, creator"
        yield LintWarning(start, "no-attribution", "has no attribution.txt", hint)
    elif not _LICENCE.search(leaf.attribution):
        hint = "add a line such as `License of the work: CC-BY-SA-4.0`"
        yield LintWarning(start, "no-licence", "its attribution.txt names no licence", hint)
    for seed in leaf.seeds:
        yield from _seed(leaf, seed)
    yield from _near_duplicates(leaf)


def _seed(leaf: Leaf, seed: SeedExample) -> Iterator[LintWarning]:
    if seed.context:
        length = len(seed.context.split())
        if length > MOST_CONTEXT:
            hint = f"divide it into several seed examples of at most {MOST_CONTEXT} words"
            yield LintWarning(seed.place, "long-context", f"the context has {length} words", hint)
        yield from _personal(seed.place, "context", seed.context)
    known = _stems(seed.context or "")
    for pair in seed.pairs:
        length = len(pair.question.split()) + len(pair.answer.split())
        if length > MOST_PAIR:
            hint = f"shorten it to {MOST_PAIR} words; a teacher imitates the length"
            yield LintWarning(pair.place, "long-pair", f"question and answer have {length} words", hint)
        yield from _personal(pair.place, "question", pair.question)
        yield from _personal(pair.place, "answer", pair.answer)
        if leaf.kind == "knowledge":
            yield from _knowledge_pair(pair, known if seed.context else None)


def _knowledge_pair(pair: QuestionAnswer, known: set[str] | None) -> Iterator[LintWarning]:
    """``known`` are the stems of the context, ``None`` where there is no context."""
    answer = _stems(pair.answer)
    if known is not None and answer and not answer & known:
        hint = "answer from the context alone, in its words, or add the sentence that says it"
        message = f"no word of the answer `{_shown(pair.answer)}` stands in the context"
        yield LintWarning(pair.place, "answer-not-found", message, hint)
    asked = words(pair.question)
    if not _MARK.search(pair.question) and not _QUESTION_WORDS & set(asked) and asked[:1] not in _REQUESTS:
        message = f"`{_shown(pair.question)}` does not look like a question"
        yield LintWarning(pair.place, "no-question", message, "ask something, and end with a question mark")


def _near_duplicates(leaf: Leaf) -> Iterator[LintWarning]:
    """Within a leaf: skills count with their context, knowledge without (its pairs share one)."""
    pairs = [(seed, pair) for seed in leaf.seeds for pair in seed.pairs]
    texts = [
        frozenset(words(f"{'' if leaf.kind == 'knowledge' else seed.context or ''} {pair.question} {pair.answer}"))
        for seed, pair in pairs
    ]
    index = NearCopies(texts)
    for at, (_, pair) in enumerate(pairs):
        first = index.find(texts[at], before=at)
        if first is not None:
            message = f"says nearly the same as the example at line {pairs[first][1].place.line}"
            yield LintWarning(pair.place, "near-duplicate", message, "replace it by a different example")


def _leaks(leaves: Sequence[Leaf]) -> Iterator[LintWarning]:
    """Held-out questions that stand among the seeds: of any leaf word for word, of the same leaf nearly so."""
    held: dict[tuple[str, ...], list[Item]] = {}
    for leaf in leaves:
        for item in leaf.items:
            held.setdefault(tuple(words(item.question)), []).append(item)
    if not held:
        return
    for leaf in leaves:
        index = NearCopies(frozenset(words(item.question)) for item in leaf.items)
        for seed in leaf.seeds:
            for pair in seed.pairs:
                asked = words(pair.question)
                near = index.find(frozenset(asked)) if leaf.items else None
                items = held.get(tuple(asked), []) + ([leaf.items[near]] if near is not None else [])
                leaked = [item for item in items if _same_text(leaf, seed, item)]
                if leaked:
                    of = "this leaf" if leaked[0].leaf == leaf.path else leaked[0].leaf
                    message = f"the question is held out in the eval.yaml of {of}"
                    yield LintWarning(pair.place, "leak", message, "reword one of the two, or remove one")


def _same_text(leaf: Leaf, seed: SeedExample, item: Item) -> bool:
    """Whether the two ask about the same text: `Summarise this.` about two texts is two questions."""
    if leaf.kind == "knowledge" or not (seed.context or item.context):
        return True
    return words(seed.context or "") == words(item.context or "")


def _personal(place: Place, what: str, text: str) -> Iterator[LintWarning]:
    for kind, (sign, pattern) in _PERSONAL.items():
        if not sign.search(text):
            continue
        match = next((match for match in pattern.finditer(text) if kind != _ACCOUNT or _is_iban(match[0])), None)
        if match is not None:
            message = f"the {what} holds what looks like {kind} (`{match[0][:4]}…`)"
            yield LintWarning(place, "personal-data", message, "take it out, or make it up (name@example.org)")


def _is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN are right (ISO 13616: mod 97 is 1)."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _stems(text: str) -> set[str]:
    """The content words, cut to five letters: `crosses` and `crossing` are one; small numbers as figures."""
    return {_FIGURES.get(word, word[:5]) for word in words(text) if word not in _FUNCTION_WORDS}


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


_ACCOUNT = "a bank account number"
_PERSONAL = {  # what -> a sign that is quickly looked for, and the whole
    "an e-mail address": (
        re.compile("@"),
        re.compile(
            r"(?<![\w.+-])[\w.+-]{1,64}@(?!(?:[\w-]+\.)*example\b)(?:[\w-]{1,63}\.){1,8}[a-z]{2,24}\b", re.IGNORECASE
        ),
    ),
    "a telephone number": (
        re.compile(r"\+\d|\(\d|\d-\d"),
        re.compile(
            r"(?<![\w.+-])"
            r"(?:\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,6}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}-\d{3}-\d{4})(?![\w-])"
        ),
    ),
    _ACCOUNT: (
        re.compile(r"[A-Z]{2}\d\d"),
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
    ),
}
_LICENCE = re.compile(r"licen[cs]e|\bcc[- ]?(?:by|0)\b|public domain|copyright|©", re.IGNORECASE)
_MARK = re.compile("[?\uff1f\u061f\u037e\u2e2e]")  # also the full-width, Arabic, Greek and mirrored ones
_QUESTION_WORDS = frozenset(
    words(
        "what which who whom whose when where why how is are was were do does did can could may should will would has "
        "have had"
    )
)
_REQUESTS = [
    [word]
    for word in words(
        "calculate choose classify compare complete compute contrast count define describe determine discuss explain "
        "extract fill find give identify illustrate list mention name outline please provide quote recall recite say "
        "show sort specify state summarise summarize tell translate write"
    )
]
_FIGURES = {
    word: str(number)
    for number, word in enumerate(words("zero one two three four five six seven eight nine ten eleven twelve"))
}
_FUNCTION_WORDS = frozenset(
    words(
        "a an and are as at be been but by can could did do does for from had has have he her his i if in into is it "
        "its may not of on or our she should so some such than that the their them then there these they this those "
        "to was we were which who will with would yes no you your"
    )
)
