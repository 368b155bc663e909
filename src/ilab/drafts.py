"""Proposes seed examples for a knowledge leaf: passages of its documents, with questions, for a person to correct.

    qna.yaml, half filled in ─▶ documents ─▶ passages ─▶ candidates (teacher, or rules) ─▶ checks ─▶ drafts in qna.yaml

Every proposal is marked ``draft: true`` and counts for nothing until a person takes that line away. Passages are spread
over the documents; one that stands among the seed examples already, whole or in part, is not proposed again. A pair is
kept when its question is one and stands alone, its answer stands in the passage, and nothing like it is there yet; what
is refused is counted by reason. Nothing is written before all is there, and a teacher's answers are kept in the memo,
so a repeat costs nothing. It composes taxonomy, documents, sdg and models, like :mod:`ilab.actions`.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ilab.config import Endpoint, Loaded
from ilab.core.files import write_text
from ilab.core.memo import Memo
from ilab.data import DocumentRef, Leaf, Place
from ilab.documents.collect import collect
from ilab.documents.locate import find_documents
from ilab.documents.passages import LEAST, Passage, passages, spread
from ilab.documents.policy import Policy
from ilab.errors import IlabError, InputError, InputErrors, ServiceError
from ilab.models.cached import Cached
from ilab.models.chat import Refused
from ilab.sdg.draft_pairs import Candidate, by_rule, by_teacher
from ilab.taxonomy.layout import find_layout
from ilab.taxonomy.lint import MOST_PAIR
from ilab.taxonomy.references import read_references
from ilab.taxonomy.seed_list import Draft, Unfinished, Written, read_unfinished, with_drafts
from ilab.taxonomy.similar import NearCopies, words
from ilab.taxonomy.yamlnodes import text as scalar
from ilab.transfer.stores import open_store

SEEDS = 5  # seed examples that a leaf needs
LEAST_PAIRS, MOST_PAIRS = 3, 5  # of one seed example: what a leaf needs, and what a person likes to read
TRIES = 3  # passages that a teacher is asked about, at most, for each draft wanted
STANDS = 0.8  # share of an answer's content words that must stand in passage or question
USED = 0.5  # share of a passage's word groups that make it one that is there already
_GROUP = 4  # words
_SHOWN = 5  # flagged places of the documents
_TOO_SHORT = f"its documents have no passage of {LEAST} words or more"
_OF_TEXT = re.compile(
    r"\b(?:this|the|above|given|following) (?:passage|text|document|section|paragraph|excerpt|context|article)\b",
    re.IGNORECASE,
)
_UNFIT = re.compile("[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


Tell = Callable[[str], None]  # takes a line of progress, for people


@dataclass(frozen=True)
class Proposal:
    """``drafts`` for the leaf ``path``, not yet written. ``by`` is the teacher's name, or "" for the rules.

    ``refused`` counts by reason what was not good enough; ``calls`` went to the teacher, ``from_memo`` did not.
    """

    leaf: Unfinished
    path: str
    wanted: int
    drafts: tuple[Draft, ...]
    refused: Mapping[str, int]
    by: str
    calls: int = 0
    from_memo: int = 0


def find_leaf(root: Path, folder: Path, given: str) -> Path | None:
    """The ``qna.yaml`` that ``given`` means: a path from ``folder``, or a leaf of the taxonomy at ``root``."""
    for start in (folder, root):
        for path in (start / given, start / given / "qna.yaml"):
            if path.is_file() and path.name == "qna.yaml":
                return path
    return None


def propose(loaded: Loaded, file: Path, *, count: int | None, model: str, tell: Tell) -> Proposal:
    """Drafts for the leaf in ``file``: ``count`` of them, or as many as are missing to five. Writes nothing.

    ``model`` is the teacher's name ("" for the one in the configuration); without a teacher the extractive rules
    propose. ``tell`` is called with lines of progress. Raises ``InputError`` for a leaf that cannot be drafted for or
    whose documents give nothing, ``ServiceError`` where the teacher fails or no answer of its could be used.
    """
    layout = find_layout(file)
    name = layout.name(layout.files[0])
    leaf = read_unfinished(file, name)
    references = _references(leaf)
    teacher = _teacher(loaded, model)
    by = teacher[1] if teacher else ""
    path = layout.leaf_path(layout.files[0], "knowledge")
    wanted = max(0, SEEDS - len(leaf.seeds)) if count is None else count
    if not wanted:
        return Proposal(leaf, path, 0, (), {}, by)
    bare = Leaf(
        path=path,
        kind="knowledge",
        version=3,
        created_by="",
        seeds=(),
        documents=references,
        digest="",
        place=Place(file=name, line=1),
    )
    found = _passages(loaded, bare, layout.root, wanted, tell)
    fresh = _fresh(found, leaf.seeds)
    if not fresh:
        why = "every passage of its documents stands among the seed examples already" if found else _TOO_SHORT
        raise InputError(why, where=name, hint="add a document to `document:`, or write seed examples by hand")
    chooser = _Chooser(leaf.seeds)
    ordered = spread(fresh, wanted)
    if teacher is None:
        chosen, used = _by_rule(ordered, wanted, chooser), (0, 0)
    else:
        chosen, used = _by_teacher(loaded, teacher, ordered, wanted, chooser, tell)
    if not chosen:
        raise _nothing(name, chooser.refused, by)
    drafts = tuple(chosen[passage] for passage in fresh if passage in chosen)
    return Proposal(leaf, path, wanted, drafts, dict(chooser.refused), by, *used)


def add(proposal: Proposal) -> tuple[Written, ...]:
    """Write the drafts into the file, as it stands by now; returns all drafts that wait in it."""
    path, name = proposal.leaf.path, proposal.leaf.name
    if proposal.drafts:
        write_text(path, with_drafts(read_unfinished(path, name), proposal.drafts))
    return read_unfinished(path, name).drafts


def _references(leaf: Unfinished) -> tuple[DocumentRef, ...]:
    """What the leaf says about its documents. Raises ``InputError`` where it can have no drafts."""
    node = leaf.root.get("document")
    if node is None and not leaf.name.startswith("knowledge/"):
        hint = "write its seed examples by hand; `ilab taxonomy check` says what is missing"
        raise InputError("is a skill: drafts are made from documents, and it has none", where=leaf.name, hint=hint)
    version = scalar(leaf.root.get("version")) or "1"
    if version != "3":
        hint = "type: ilab taxonomy upgrade"
        raise InputError(f"has version {version}; drafts are of version 3", where=leaf.name, hint=hint)
    problems: list[InputError] = []
    references = read_references(node, leaf.name, problems)
    if problems:
        raise InputErrors(problems)
    named = [ref for ref in references if any(ref.patterns) or any(ref.urls) or ref.text]
    if not named:
        hint = "write below `document:` where the facts stand, such as `  path: my_topic.md`"
        place = str(references[0].place) if references else leaf.name
        raise InputError("names no document yet, and drafts are made from documents", where=place, hint=hint)
    return tuple(named)


def _teacher(loaded: Loaded, model: str) -> tuple[Endpoint, str] | None:
    """The teacher's server and name, or ``None`` where there is none."""
    endpoint = loaded.config.where.teacher
    if endpoint is None:
        if model:
            hint = "add --set where.teacher.url=http://127.0.0.1:8000/v1"
            raise InputError("--model is given, but no endpoint serves it", where="where.teacher", hint=hint)
        return None
    name = model or str(loaded.config.parameters.get("sdg_teacher_model") or "")
    if not name:
        hint = f"give the name that {endpoint.url} serves: --model NAME"
        raise InputError("the teacher's name is missing", where="sdg_teacher_model", hint=hint)
    return endpoint, name


def _passages(loaded: Loaded, leaf: Leaf, root: Path, wanted: int, tell: Tell) -> list[Passage]:
    """The passages of the leaf's documents, read as a build would read them. What looks untrustworthy is told."""
    tell(f"reading the documents of {leaf.path}")
    found = find_documents([leaf], root, loaded.config.where, base=loaded.base)
    parameters = loaded.config.parameters
    policy = Policy.parse(str(parameters.get("document_policy") or "warn"))
    converter = str(parameters.get("document_converter") or "builtin")
    memo = Memo(open_store(loaded).memo("documents"))
    try:
        documents = collect([leaf], found, policy=policy, memo=memo, converter=converter)
    finally:
        memo.close()
    flags = [flag for document in documents for flag in document.flags]
    for flag in flags[:_SHOWN]:
        tell(f"{flag.source}: {flag.place}: {flag.kind}, {flag.action}: {flag.excerpt}")
    if len(flags) > _SHOWN:
        tell(f"and {len(flags) - _SHOWN} more such places")
    # Never for fewer than a whole leaf: where passages begin must not depend on how many are still missing.
    return passages(documents, max(wanted, SEEDS))


def _fresh(found: Sequence[Passage], seeds: Sequence[Written]) -> list[Passage]:
    """The passages of which no considerable part stands in a context of ``seeds`` (nor the other way round)."""
    contexts = [groups for seed in seeds if (groups := _groups(seed.context))]

    def is_used(passage: Passage) -> bool:
        own = _groups(passage.text)
        return any(len(own & context) >= USED * min(len(own), len(context)) for context in contexts)

    return [passage for passage in found if not is_used(passage)]


def _groups(text: str) -> frozenset[tuple[str, ...]]:
    """All groups of so many words in a row; a shorter text is one group."""
    listed = words(text)
    last = max(1, len(listed) - _GROUP + 1)
    return frozenset(tuple(listed[at : at + _GROUP]) for at in range(last) if listed)


def _by_rule(ordered: Sequence[Passage], wanted: int, chooser: _Chooser) -> dict[Passage, Draft]:
    chosen: dict[Passage, Draft] = {}
    for passage in ordered:
        if len(chosen) == wanted:
            break
        draft = chooser.choose(passage, by_rule(passage.text, passage.heading))
        if draft is not None:
            chosen[passage] = draft
    return chosen


def _by_teacher(
    loaded: Loaded,
    teacher: tuple[Endpoint, str],
    ordered: Sequence[Passage],
    wanted: int,
    chooser: _Chooser,
    tell: Tell,
) -> tuple[dict[Passage, Draft], tuple[int, int]]:
    """What is chosen of a teacher's answers, and its calls: made, and taken from the memo."""
    from ilab.models.openai import OpenAIModel

    endpoint, model = teacher
    memo = Memo(open_store(loaded).memo("teacher"))
    client = Cached(OpenAIModel(endpoint), memo)

    async def ask(passage: Passage) -> list[Candidate]:
        try:
            return await by_teacher(client, model, passage.text, passage.heading, MOST_PAIRS)
        except Refused as error:
            chooser.refused[f"the server refuses the passage: {error.message}"] += 1
            return []

    async def run() -> dict[Passage, Draft]:
        chosen: dict[Passage, Draft] = {}
        left = list(ordered[: TRIES * wanted])
        try:
            while left and len(chosen) < wanted:
                batch, left = left[: wanted - len(chosen)], left[wanted - len(chosen) :]
                tell(f"asking {model} about {len(batch)} passages; {len(chosen)} of {wanted} drafts so far")
                for passage, found in zip(batch, await asyncio.gather(*map(ask, batch)), strict=True):
                    draft = chooser.choose(passage, found)
                    if draft is not None:
                        chosen[passage] = draft
            return chosen
        finally:
            await client.close()

    try:
        return asyncio.run(run()), (client.calls, client.from_memo)
    finally:
        memo.close()


class _Chooser:
    """Keeps of the candidates what is good enough, and counts in ``refused`` what is not."""

    def __init__(self, seeds: Sequence[Written]) -> None:
        self.refused: Counter[str] = Counter()
        self._questions = [frozenset(words(question)) for seed in seeds for question, _ in seed.pairs]

    def choose(self, passage: Passage, candidates: Sequence[Candidate]) -> Draft | None:
        """A draft of the passage, with its pairs in the order of the text; ``None`` where too few are good."""
        text = re.sub(r"(?m)^[ \t]+$", "", passage.text)
        if _UNFIT.search(text):
            self.refused["the passage holds a character that YAML cannot hold"] += 1
            return None
        kept: list[Candidate] = []
        for question, answer in ((_line(asked), _line(said)) for asked, said in candidates):
            reason = _fault(question, answer, text) or self._repeats(question, answer, kept)
            if reason:
                self.refused[reason] += 1
            elif len(kept) < MOST_PAIRS:
                kept.append((question, answer))
        if len(kept) < LEAST_PAIRS:
            self.refused[f"fewer than {LEAST_PAIRS} good pairs for a passage"] += 1
            return None
        self._questions += [frozenset(words(question)) for question, _ in kept]
        kept.sort(key=lambda pair: text.find(pair[1]) if pair[1] in text else len(text))
        where = [
            posixpath.basename(passage.source),
            *passage.heading[-1:],
            *([f"page {passage.page}"] * bool(passage.page)),
        ]
        return Draft(text, tuple(kept), f"from {', '.join(where)}")

    def _repeats(self, question: str, answer: str, kept: Sequence[Candidate]) -> str:
        asked = [*self._questions, *(frozenset(words(other)) for other, _ in kept)]
        if NearCopies(asked).find(frozenset(words(question))) is not None:
            return "nearly the same question is there already"
        if any(words(answer) == words(other) for _, other in kept):
            return "another question of the passage has that answer"
        if any(_holds(question, said) and _holds(asked_before, answer) for asked_before, said in kept):
            return "it asks what another one asks, the other way round"
        return ""


def _fault(question: str, answer: str, passage: str) -> str:
    """What is wrong with a pair, or ""."""
    if not question.endswith("?") or len(words(question)) < 3:
        return "the question is none: it does not end with a question mark"
    if _OF_TEXT.search(question) or _OF_TEXT.search(answer):
        return "it speaks of the passage instead of its subject"
    if not words(answer):
        return "the answer is empty"
    if len(question.split()) + len(answer.split()) > MOST_PAIR:
        return f"question and answer have over {MOST_PAIR} words"
    known = {word[:5] for word in words(f"{passage} {question}")}
    told = {word[:5] for word in words(passage)}
    said = words(answer)
    content = [word[:5] for word in said if len(word) > 3 or not word.isalpha()] or said
    numbers = [word[:5] for word in said if any(sign.isdigit() for sign in word)]
    if sum(word in known for word in content) < STANDS * len(content) or not all(word in told for word in numbers):
        return "the answer does not stand in the passage"
    if _holds(question, answer):
        return "the question holds its answer"
    return ""


def _holds(text: str, part: str) -> bool:
    """Whether the words of ``part`` stand in ``text`` in a row."""
    return f" {' '.join(words(part))} " in f" {' '.join(words(text))} "


def _line(text: str) -> str:
    """``text`` on one line, without what cannot be shown."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _nothing(name: str, refused: Mapping[str, int], by: str) -> IlabError:
    """No passage gave a draft: by whose fault, and why."""
    reasons = "; ".join(f"{reason} ({times})" for reason, times in Counter(refused).most_common(4))
    if by:
        hint = "take another teacher (--model NAME); good answers are kept"
        return ServiceError(f"no answer of {by} could be used: {reasons}", where=name, hint=hint)
    hint = "the rules fit reference text; for other documents take a teacher (--model NAME, where.teacher.url)"
    return InputError(f"the rules make no draft of its documents: {reasons}", where=name, hint=hint)
