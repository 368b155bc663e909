"""Why does the model still get this wrong? One cause for each wrong answer, with its evidence and what to type next.

    answered though unanswerable   the documents do not say it, and the model did not say that it does not know
    wrong sample                   a sample of this question contradicts the passage it was made from
    sources conflict               two leaves, documents or passages answer the same question differently
    learned then forgotten         right after an earlier phase, wrong now
    not covered                    no sample asks for it; with where that broke off: document, generation, filters
    not learned                    the samples have it, and the model still does not

They are tried in this order, but a wrong or conflicting sample comes before *forgotten* only if the model says what
that sample says. A verdict on a sample is careful: its question must be the held-out one, or nearly, and its answer
must be another, not merely a longer one. Everything is word overlap; no model is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ilab.data import Chunk, Item, Sample, Score
from ilab.evaluation.compare import RIGHT, kind_of, unscored
from ilab.evaluation.diagnose_index import alike, stems
from ilab.evaluation.diagnose_taught import (
    ASKED,
    NEAR,
    Taught,
    agrees,
    all_words,
    asks_same,
    facts_of,
    figures,
    said,
    states,
    supported,
)

Cause = Literal[
    "not covered",
    "wrong sample",
    "sources conflict",
    "learned then forgotten",
    "not learned",
    "answered though unanswerable",
]
CAUSES: tuple[Cause, ...] = (
    "not covered",
    "wrong sample",
    "sources conflict",
    "learned then forgotten",
    "not learned",
    "answered though unanswerable",
)
GENERAL = "general/"  # leaves of the suite that guards against forgetting: no sample is meant to teach them

SHOWN = 3  # of them that are named as evidence
ASKED_OF_COMMON = 0.6  # ... where the answer ("yes", "two") is common among the samples
COMMON = 0.05  # share of samples that makes an answer's rarest word common
SHORT = 12  # words of an answer that is a fact and no essay


@dataclass(frozen=True)
class Diagnosis:
    """Why ``item`` is answered wrongly. ``samples``, ``rejected`` and ``chunk`` are ids: the evidence.

    ``source`` is the document with its heading, ``place`` the leaf's ``file:line`` that is nearest to the question,
    ``because`` one sentence, ``advice`` one line with the next command.
    """

    item: str
    leaf: str
    cause: Cause
    because: str
    advice: str
    samples: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    chunk: str | None = None
    source: str | None = None
    place: str | None = None

    def facts(self) -> dict[str, Any]:
        """The diagnosis as plain JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Tries:
    """What the models made of the items, by item id: the base, the phases between by name, and the candidate."""

    reference: Mapping[str, Score]
    earlier: Mapping[str, Mapping[str, Score]]
    candidate: Mapping[str, Score]

    @classmethod
    def of(cls, scores: Mapping[str, Sequence[Score]], reference: str, candidate: str) -> Tries:
        """``scores`` by model. The phases are the models called ``phase …``; a previous release is none."""
        table = {model: {score.item: score for score in found} for model, found in scores.items()}
        phases = {name: table[name] for name in table if name.startswith("phase") and name != candidate}
        return cls(table.get(reference, {}), phases, table.get(candidate, {}))


def diagnose(items: Sequence[Item], tries: Tries, taught: Taught) -> list[Diagnosis]:
    """A diagnosis for each of ``items`` that the candidate answers wrongly, in the order of their ids.

    Items without a score are not wrong; nor are those of the general suite ours to explain.
    """
    wrong = [item for item in items if not item.leaf.startswith(GENERAL) and is_wrong(tries.candidate.get(item.id))]
    return [diagnose_one(item, tries, taught) for item in sorted(wrong, key=lambda item: item.id)]


def is_wrong(score: Score | None) -> bool:
    return score is not None and not unscored(score) and (score.value or 0.0) <= RIGHT


def is_right(score: Score | None) -> bool:
    return score is not None and not unscored(score) and (score.value or 0.0) > RIGHT


def diagnose_one(item: Item, tries: Tries, taught: Taught) -> Diagnosis:
    """The cause for one wrongly answered item."""
    found = Diagnosis(item.id, item.leaf, "not learned", "", "", place=taught.place(item.leaf, item.question))
    given = tries.candidate.get(item.id)
    if item.unanswerable:
        return _unanswerable(found, given, taught.near(item.question))
    question = " ".join(filter(None, (item.question, item.context)))
    near = taught.near(question, item.gold)
    covering = [sample for sample in near if covers(sample, item, taught)]
    said_wrong = _contradiction(item, near, given, taught)
    if said_wrong and given is not None and agrees(given.answer or "", said_wrong.answer):
        return _wrong_sample(found, item, said_wrong, covering, taught)
    phase = next((name for name, scores in tries.earlier.items() if is_right(scores.get(item.id))), None)
    if phase and (covering or is_right(tries.reference.get(item.id))):
        return _forgotten(found, phase, covering)
    if said_wrong:
        return _wrong_sample(found, item, said_wrong, covering, taught)
    if not covering:
        return _not_covered(found, item, taught)
    return _not_learned(found, item, covering)


def covers(sample: Sample, item: Item, taught: Taught) -> bool:
    """Whether a sample teaches the item: it asks for it and states the right answer. Of a skill: its own leaf's do.

    A passage that is only read (every token bears loss) asks nothing and does not count.
    """
    if kind_of(item.leaf) == "skills":
        return sample.leaf == item.leaf
    text = said(sample)
    if sample.train_on == "all" or not states(text, item.gold):
        return False
    index, gold = taught.index, stems(item.gold)
    wanted = stems(item.question) - gold
    needed = ASKED if index.rarest(gold) <= COMMON * len(index.texts) else ASKED_OF_COMMON
    return not wanted or index.share(wanted, stems(text)) >= needed


def _contradiction(item: Item, near: Sequence[Sample], given: Score | None, taught: Taught) -> Sample | None:
    """The sample that teaches another answer; one that the model repeats comes first."""
    question = " ".join(filter(None, (item.question, item.context)))
    asking = [sample for sample in near if sample.train_on != "all"]
    if kind_of(item.leaf) == "skills":  # its answers are made of the question's words: only equal questions compare
        equal = [one for one in asking if one.leaf == item.leaf and alike(one.question) == alike(question)]
        return next((one for one in equal if alike(one.answer) != alike(item.gold)), None)
    found = [
        sample
        for sample in asking
        if _another(sample, item)
        and (asks_same(taught.index, question, sample.question) or _invented(sample, item, taught))
    ]
    repeated = [sample for sample in found if given is not None and agrees(given.answer or "", sample.answer)]
    return next(iter([*repeated, *found]), None)


def _another(sample: Sample, item: Item) -> bool:
    """Whether a sample's answer is short, of the gold's sort, and another; not what the question itself says.

    *What did a gale break?* asks for another part of the sentence than *When did a gale break the glass?*
    """
    answer = facts_of(sample.answer)
    return (
        0 < len(answer) <= SHORT
        and bool(figures(sample.answer)) == bool(figures(item.gold))
        and not agrees(sample.answer, item.gold)
        and not answer <= all_words(item.question)
        and not states(sample.question, item.gold)
    )


def _invented(sample: Sample, item: Item, taught: Taught) -> bool:
    """Whether a sample about the item's question answers what its own passage does not say, while that has the gold."""
    chunk = taught.passage(sample)
    about = taught.index.share(stems(item.question) - stems(item.gold), stems(sample.question))
    if chunk is None or about < ASKED_OF_COMMON or not states(chunk.text, item.gold):
        return False
    return not supported(sample.answer, chunk.text)


# -- one cause each ------------------------------------------------------------------------------------------------


def _unanswerable(found: Diagnosis, given: Score | None, near: Sequence[Sample]) -> Diagnosis:
    return replace(
        found,
        cause="answered though unanswerable",
        because=f"the documents do not say it, and the model answered {_quoted(given.answer if given else '')}",
        samples=tuple(sample.id for sample in near[:SHOWN]),
        advice=f"add a seed example that is answered with “the document does not say” at {found.place or found.leaf}; "
        "then: ilab run",
    )


def _wrong_sample(
    found: Diagnosis, item: Item, sample: Sample, covering: Sequence[Sample], taught: Taught
) -> Diagnosis:
    """A sample says otherwise: because the teacher made it up, or because its source says so?"""
    chunk = taught.passage(sample)
    backed = taught.is_seed(sample) or (chunk is not None and supported(sample.answer, chunk.text))
    samples = tuple(dict.fromkeys([sample.id, *(one.id for one in covering[: SHOWN - 1])]))
    found = replace(found, samples=samples, chunk=chunk.id if chunk else None, source=_source(chunk, sample))
    elsewhere = sample.leaf != item.leaf
    if not backed and not (elsewhere and chunk is None):
        against = "its passage does not say so" if chunk else "no passage stands behind it"
        return replace(
            found,
            cause="wrong sample",
            because=f"a sample answers {_quoted(sample.answer)} instead of {_quoted(item.gold)}, and {against}",
            advice=f"look at it: ilab data why '{sample.id}'; a clearer passage or a stronger teacher, then: ilab run",
        )
    who = f"leaf {sample.leaf}" if elsewhere else f"{found.source or 'a seed example'}"
    own = taught.chunk_for(item.question, item.gold, item.leaf)
    other = f"{own.source}" if own else f"the held-out question of {item.leaf}"
    places = " and ".join(dict.fromkeys(filter(None, (found.place, taught.place(sample.leaf, sample.question)))))
    return replace(
        found,
        cause="sources conflict",
        because=f"{who} says {_quoted(sample.answer)}, {other} says {_quoted(item.gold)}",
        advice=f"decide which is right and mend the other ({places or item.leaf}); then: ilab run",
    )


def _forgotten(found: Diagnosis, phase: str, covering: Sequence[Sample]) -> Diagnosis:
    return replace(
        found,
        cause="learned then forgotten",
        because=f"{phase} answered it rightly, what was trained after it does no longer",
        samples=tuple(sample.id for sample in covering[:SHOWN]),
        advice="repeat more of the knowledge in the last phase: ilab run -p mix_replay=0.6",
    )


def _not_covered(found: Diagnosis, item: Item, taught: Taught) -> Diagnosis:
    """Where it broke off: no document says it, nothing was made of the passage, or the filters refused all of it."""
    found = replace(found, cause="not covered")
    skill = kind_of(item.leaf) == "skills"
    chunk = None if skill else taught.chunk_for(item.question, item.gold, item.leaf)
    if chunk is None and not skill:
        return replace(
            found,
            because="no document of this leaf states the answer, and no sample asks for it",
            advice=f"write it into the document, or as a seed example at {found.place or item.leaf}; then: ilab run",
        )
    key = (item.leaf, chunk.id if chunk else "")
    kept, refused = taught.samples_by_chunk.get(key, []), taught.rejected_by_chunk.get(key, [])
    asked = [sample for sample in kept if sample.train_on != "all"]
    found = replace(
        found,
        chunk=chunk.id if chunk else None,
        source=_source(chunk),
        samples=tuple(sample.id for sample in kept[:SHOWN]),
        rejected=tuple(row.id for row in refused[:SHOWN]),
    )
    what = "passage" if chunk else "leaf"
    if asked:
        made = "1 sample was" if len(asked) == 1 else f"{len(asked)} samples were"
        none = "it does not ask" if len(asked) == 1 else "none asks"
        because = f"{made} made from the passage that says it, and {none} for it"
        advice = f"add a seed example of this kind at {found.place or item.leaf}, or make more samples; then: ilab run"
    elif refused:
        because = f"all {len(refused)} rows made from the {what} were refused, the first by {refused[0].block}: " + (
            refused[0].reason
        )
        advice = f"read them: ilab data show --leaf {item.leaf} --verdict rejected"
    else:
        read = " (it was only read as a text)" if kept else ""
        because = f"no sample was ever made from the {what} that teaches it{read}"
        advice = f"see what was made: ilab data show --leaf {item.leaf}; then make it again: ilab run --force generate"
    return replace(found, because=because, advice=advice)


def _not_learned(found: Diagnosis, item: Item, covering: Sequence[Sample]) -> Diagnosis:
    skill = kind_of(item.leaf) == "skills"
    many = f"{len(covering)}{' or more' if len(covering) >= NEAR else ''} samples"
    verb = "practise the skill" if skill else "teach it"
    told = f"{many} {verb}" if len(covering) > 1 else "one sample teaches it"
    phase = "2" if skill else "1"
    return replace(
        found,
        because=f"{told}, and the model still answers otherwise",
        samples=tuple(sample.id for sample in covering[:SHOWN]),
        advice=f"more samples or more passes: ilab run -p sdg_scale_factor=N, or -p train_epochs_phase_{phase}=N",
    )


def _source(chunk: Chunk | None, sample: Sample | None = None) -> str | None:
    if chunk is None:
        return sample.origin.source if sample else None
    return f"{chunk.source} ({' > '.join(chunk.heading)})" if chunk.heading else chunk.source


def _quoted(text: str | None) -> str:
    plain = " ".join((text or "").split())
    return f"“{plain[:80]}…”" if len(plain) > 81 else f"“{plain}”"
