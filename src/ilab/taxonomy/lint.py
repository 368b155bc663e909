"""What is probably not meant, in leaves that can be read: warnings for the author, never errors.

    personal-data       an e-mail address, telephone number or bank account in a seed example
    no-attribution      no attribution.txt beside the leaf
    no-licence          an attribution.txt that names no licence
    answer-not-found    knowledge: not one content word of the answer stands in the context
    no-question         knowledge: a question without a question mark, a question word or a request
    near-duplicate      a seed example that says what an earlier one of the leaf says
    leak                a seed question that is also held out in an eval.yaml
    long-context        a context over 500 words, or one that the teacher's window does not hold
    long-pair           a question and answer over 250 words together
    mixed-contexts      a skill in which some seed examples have a context and others have none
    no-document         a local document pattern that fits no file
    file                a file or folder that is passed over
    draft               examples that do not count until a person has read them (told by read.py)
    old-version         a file of version 1 or 2 (told by read.py)

Word lists are English; a question mark of any script counts. Formatting is never a matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ilab.data import Item, Leaf, Place, QuestionAnswer, SeedExample
from ilab.taxonomy.similar import NearCopies, words

MOST_CONTEXT, MOST_PAIR = 500, 250  # words; the sizes that the InstructLab taxonomy's guidelines recommend
TOKEN_BYTES = 4  # bytes of text a token stands for, roughly, in the common tokenizers

Documents = Mapping[str, Mapping[str, Sequence[str]]]
"""Path of a leaf -> local document pattern -> the files it fits."""


@dataclass(frozen=True)
class LintWarning:
    """``code`` is one of those above, ``hint`` what the author may do."""

    place: Place
    code: str
    message: str
    hint: str = ""


class _Example(NamedTuple):
    """A question-answer pair with the words of its texts, each taken apart once."""

    seed: SeedExample
    pair: QuestionAnswer
    context: list[str]
    question: list[str]
    answer: list[str]


def lint(
    leaves: Sequence[Leaf],
    documents: Documents | None = None,
    *,
    notes: Iterable[LintWarning] = (),
    window: int | None = None,
) -> list[LintWarning]:
    """All warnings about ``leaves`` and the ``notes`` of ``read_leaves``, by file and line.

    Without ``documents`` their patterns are not looked at. ``window`` is the number of tokens the teacher can read.
    """
    found = [*notes, *(warning for leaf in leaves for warning in _leaf(leaf, window))]
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


def _leaf(leaf: Leaf, window: int | None) -> Iterator[LintWarning]:
    start = Place(file=leaf.place.file, line=1)
    if not leaf.attribution:
        hint = "write attribution.txt beside it: title of the work, link, licence, creator"
        yield LintWarning(start, "no-attribution", "has no attribution.txt", hint)
    elif not _LICENCE.search(leaf.attribution):
        hint = "add a line such as `License of the work: CC-BY-SA-4.0`"
        yield LintWarning(start, "no-licence", "its attribution.txt names no licence", hint)
    examples = []
    for seed in leaf.seeds:
        context = words(seed.context or "")
        examples += [_Example(seed, pair, context, words(pair.question), words(pair.answer)) for pair in seed.pairs]
        if seed.context:
            yield from _context(seed.place, seed.context, window)
    for example in examples:
        yield from _pair(example)
        if leaf.kind == "knowledge":
            yield from _knowledge_pair(example)
    yield from _near_duplicates(leaf, examples)
    bare = [seed for seed in leaf.seeds if not seed.context]
    if leaf.kind == "grounded" and bare:
        message = f"has no context, as {len(bare)} of the {len(leaf.seeds)} seed examples"
        hint = "divide the leaf in two, with and without contexts: other tools cannot read both in one"
        yield LintWarning(bare[0].place, "mixed-contexts", message, hint)


def _context(place: Place, context: str, window: int | None) -> Iterator[LintWarning]:
    length = len(context.split()) if len(context) > 2 * MOST_CONTEXT else 0  # a word and a blank are two characters
    if length > MOST_CONTEXT:
        hint = f"divide it into several seed examples of at most {MOST_CONTEXT} words"
        yield LintWarning(place, "long-context", f"the context has {length} words", hint)
    if window is not None and len(context) > window:  # a character has at most four bytes, as has a token
        tokens = len(context.encode("utf-8", "replace")) // TOKEN_BYTES
        if tokens > window:
            message = f"the context has about {tokens:,} tokens; the teacher's window holds {window:,}"
            yield LintWarning(place, "long-context", message, "divide it, or give a teacher with a larger window")
    yield from _personal(place, "context", context)


def _pair(example: _Example) -> Iterator[LintWarning]:
    pair = example.pair
    if len(pair.question) + len(pair.answer) > 2 * MOST_PAIR:
        length = len(pair.question.split()) + len(pair.answer.split())
        if length > MOST_PAIR:
            hint = f"shorten it to {MOST_PAIR} words; a teacher imitates the length"
            yield LintWarning(pair.place, "long-pair", f"question and answer have {length} words", hint)
    yield from _personal(pair.place, "question", pair.question)
    yield from _personal(pair.place, "answer", pair.answer)


def _knowledge_pair(example: _Example) -> Iterator[LintWarning]:
    pair = example.pair
    answer = [word for word in example.answer if word not in _FUNCTION_WORDS]
    if example.context and answer and not _stands_in(answer, example.context):
        hint = "answer from the context alone, in its words, or add the sentence that says it"
        message = f"no word of the answer `{_shown(pair.answer)}` stands in the context"
        yield LintWarning(pair.place, "answer-not-found", message, hint)
    if "?" in pair.question or _MARK.search(pair.question):
        return
    asked = example.question
    if not _QUESTION_WORDS.intersection(asked) and asked[:1] not in _REQUESTS:
        message = f"`{_shown(pair.question)}` does not look like a question"
        yield LintWarning(pair.place, "no-question", message, "ask something, and end with a question mark")


def _stands_in(answer: list[str], context: list[str]) -> bool:
    """Whether any of the content words stands in the context, as it is or in another form."""
    if not set(answer).isdisjoint(context):
        return True
    known = {_stem(word) for word in context if word not in _FUNCTION_WORDS}
    return any(_stem(word) in known for word in answer)


def _near_duplicates(leaf: Leaf, examples: list[_Example]) -> Iterator[LintWarning]:
    """Within a leaf: skills count with their context, knowledge without (its pairs share one)."""
    texts = [
        frozenset([*(() if leaf.kind == "knowledge" else one.context), *one.question, *one.answer]) for one in examples
    ]
    index = NearCopies(texts)
    for at, example in enumerate(examples):
        first = index.find(texts[at], before=at)
        if first is not None:
            message = f"says nearly the same as the example at line {examples[first].pair.place.line}"
            hint = "replace it by a different example"
            yield LintWarning(example.pair.place, "near-duplicate", message, hint)


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
    if text.isascii() and not any(sign in text for sign in "@0123456789"):  # the quickest way past most texts
        return
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


def _stem(word: str) -> str:
    """The word cut to five letters: `crosses` and `crossing` are one; small numbers as figures."""
    return _FIGURES.get(word, word[:5])


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
        re.compile(r"[+(-]\d"),
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
_LICENCE = re.compile(  # a line that only asks for it, with nothing behind its colon, does not name one
    r"licen[cs]e(?![^:\n]*:[ \t]*$)|\bcc[- ]?(?:by|0)\b|public domain|copyright|©", re.IGNORECASE | re.MULTILINE
)
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
