"""Multiple choice by likelihood: asked, kept, scored. What ``mmlu``, ``mmlu_branch`` and custom tasks share.

    letters   the likelihoods of " A", " B" … behind the lettered question; the greatest is the model's choice
    texts     those of the option texts themselves, by bytes, so that a short option is not preferred for its length

Of equals the first wins. Every question is kept in the memo under the model's identity and the strings that were
asked: a run that was stopped asks nothing twice, and another model or an edited prompt misses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ilab.core.step import Site, fingerprint
from ilab.data import Record, seed_from
from ilab.errors import Stopped
from ilab.evaluation.benchmarks.result import BenchmarkResult, Group, Row
from ilab.evaluation.drawn import drawn
from ilab.evaluation.prompts import LETTERS, Prompt, Shot, joined, lettered, shots_for
from ilab.evaluation.statistics import clustered_standard_error
from ilab.models.likelihood import Likelihood, Likelihoods, Pair, encode_pair
from ilab.models.renderer import Renderer

ASKING = 1  # raised when the way of asking changes: what was kept is not used again
NO_NUMBERS = "the model computes no numbers"
TOO_LONG = "an option is longer than the model can read"


class Choice(Record):
    """One question of a benchmark. ``gold`` is the position of the right one among ``options``."""

    id: str
    group: str
    question: str
    options: tuple[str, ...]
    gold: int
    cluster: str = ""

    def permuted(self, seed: int) -> Choice:
        """The same question with its options in an order that follows from its id, their texts and the seed."""
        order = sorted(
            range(len(self.options)),
            key=lambda place: (seed_from(f"{self.id}/{self.options[place]}", seed), self.options[place], place),
        )
        options = tuple(self.options[place] for place in order)
        return self.model_copy(update={"options": options, "gold": order.index(self.gold)})

    @property
    def letter(self) -> str:
        return LETTERS[self.gold]


@dataclass(frozen=True)
class Scorer:
    """A model that says how likely texts are. ``identity`` changes with weights, tokenizer and number format.

    ``open`` loads it, when the first question is not known yet.
    """

    identity: str
    renderer: Renderer
    open: Callable[[], Likelihoods]

    @cached_property
    def likelihoods(self) -> Likelihoods:
        return self.open()

    def pair(self, prompt: Prompt, continuation: str) -> Pair:
        """The tokens of one option behind its prompt."""
        if not prompt.chat:
            return encode_pair(self.renderer, prompt.plain, continuation)
        rendered = self.renderer.text(list(prompt.messages), add_generation_prompt=True)
        return encode_pair(self.renderer, rendered, continuation, rendered=True)


@dataclass(frozen=True)
class Form:
    """How multiple choice is asked: number of shots, the model's chat template or plain text, a system text."""

    shots: int = 5
    chat: bool = False
    system: str = ""
    texts: bool = False  # score the option texts as well


@dataclass(frozen=True)
class Asked:
    """One question as it is asked: ``options`` are continuations of ``prompt``."""

    id: str
    prompt: Prompt
    options: tuple[str, ...]

    def key(self, scorer: Scorer) -> str:
        prompt = self.prompt
        said = [m.model_dump() for m in prompt.messages] if prompt.chat else prompt.plain
        return fingerprint("choices", ASKING, scorer.identity, said, list(self.continuations))

    @property
    def continuations(self) -> tuple[str, ...]:
        return tuple(self.prompt.continuation(option) for option in self.options)


def ask(scorer: Scorer, asked: Sequence[Asked], site: Site, label: str) -> dict[str, tuple[Likelihood, ...]]:
    """Id to the likelihoods of its options, in order; empty where one is longer than the model can read.

    ``label`` is what progress says is going on. Raises ``Stopped`` between two batches; what was asked is kept.
    """
    memo = site.memo("scores")
    keys = {one.id: one.key(scorer) for one in asked}
    found: dict[str, tuple[Likelihood, ...]] = {}
    pairs: list[Pair] = []
    owners: list[tuple[Asked, int]] = []
    for one in asked:
        kept = memo.get(keys[one.id])
        if kept is not None:
            found[one.id] = tuple(_kept(value) for value in kept)
            continue
        own = [scorer.pair(one.prompt, continuation) for continuation in one.continuations]
        if any(len(pair.continuation) > scorer.likelihoods.context_length for pair in own):
            found[one.id] = ()
            continue
        pairs += own
        owners += [(one, option) for option in range(len(own))]
    parts: dict[str, dict[int, Likelihood]] = {}
    site.emit.progress(len(found), len(asked), "questions", note=label)
    for index, value in scorer.likelihoods.score(pairs) if pairs else ():
        one, option = owners[index]
        part = parts.setdefault(one.id, {})
        part[option] = value
        if len(part) < len(one.options):
            continue
        found[one.id] = tuple(part[place] for place in range(len(part)))
        memo.put(keys[one.id], [_to_keep(entry) for entry in found[one.id]])
        site.emit.progress(len(found), len(asked), "questions", note=label)
        if site.stopping():
            raise Stopped("evaluation stopped", hint="run the same command to go on")
    return found


def ask_choices(
    scorer: Scorer,
    questions: Sequence[Choice],
    pools: Mapping[str, Sequence[Choice]],
    form: Form,
    descriptions: Mapping[str, str],
    site: Site,
) -> list[Row]:
    """A row for each question. ``pools`` are the questions for shots, ``descriptions`` the first line, both by group.

    The letters decide a row's score; with ``form.texts`` its details say what the option texts would.
    """
    shown = {group: [(one.question, _shot(one)) for one in pool] for group, pool in pools.items()}
    letters, texts = [], []
    for one in questions:
        prompt = Prompt(
            lettered(one.question, one.options),
            joined(form.system, descriptions.get(one.group, "")),
            shots_for(one.question, shown.get(one.group, ()), form.shots),
            form.chat,
        )
        letters.append(Asked(f"{one.id}\0letters", prompt, tuple(LETTERS[: len(one.options)])))
        texts.append(Asked(f"{one.id}\0texts", prompt, one.options))
    found = ask(scorer, [*letters, *(texts if form.texts else ())], site, "questions")
    return [
        _row(one, found[f"{one.id}\0letters"], found.get(f"{one.id}\0texts"), len(asked.prompt.shots))
        for one, asked in zip(questions, letters, strict=True)
    ]


def best(values: Iterable[float]) -> int:
    """The position of the greatest; of equals the first."""
    every = list(values)
    return max(range(len(every)), key=lambda place: (every[place], -place))


def per_byte(values: Sequence[float], options: Sequence[str]) -> list[float]:
    """Log-probabilities by the bytes of the options' texts."""
    return [value / max(len(text.encode()), 1) for value, text in zip(values, options, strict=True)]


def summarise(
    benchmark: str, model: str, rows: Sequence[Row], how: str, notes: Sequence[str] = (), scored: str = "macro"
) -> BenchmarkResult:
    """The rows of one model as a result: accuracies of the groups, ``scored`` (macro or micro) as the score.

    Rows without a score are counted by their note and stand in no mean. A row's cluster is in its details.
    """
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    groups = tuple(_group(name, by_group[name]) for name in sorted(by_group))
    scores = [[row.score for row in by_group[name] if row.score is not None] for name in sorted(by_group)]
    micro = _mean([row.score for row in rows if row.score is not None])
    macro = _mean([sum(own) / len(own) for own in scores if own])
    return BenchmarkResult(
        benchmark=benchmark,
        model=model,
        scale=(0.0, 1.0),
        score=macro if scored == "macro" else micro,
        micro=micro,
        macro=macro,
        how=how,
        n=sum(row.score is not None for row in rows),
        unscored=_reasons(rows),
        groups=groups,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def limited(questions: Sequence[Choice], limit: int | None, seed: int) -> list[Choice]:
    """At most ``limit`` questions of each group, drawn by their ids and the seed, in the order of ``questions``."""
    return drawn(questions, limit, seed, lambda one: (one.group, one.id))


def _shot(one: Choice) -> Shot:
    return Shot(lettered(one.question, one.options), one.letter)


def _row(one: Choice, letters: Sequence[Likelihood], texts: Sequence[Likelihood] | None, shots: int) -> Row:
    every = (*letters, *(texts or ()))
    details: dict[str, Any] = {"options": list(one.options), "cluster": one.cluster or one.id, "shots": shots}
    row = Row(id=one.id, group=one.group, question=one.question, reference=one.options[one.gold], details=details)
    if not letters or (texts is not None and not texts):
        return row.model_copy(update={"note": TOO_LONG})
    if not all(entry.known for entry in every):
        return row.model_copy(update={"note": NO_NUMBERS})
    details["likelihoods"] = [round(entry.total, 6) for entry in letters]
    if any(entry.cut for entry in every):
        details["cut"] = max(entry.cut for entry in every)
    if texts is not None:
        sums = [entry.total for entry in texts]
        details["text_likelihoods"] = [round(value, 6) for value in sums]
        details["text_correct"] = best(per_byte(sums, one.options)) == one.gold
    chosen = best(entry.total for entry in letters)
    return row.model_copy(
        update={"answer": one.options[chosen], "score": float(chosen == one.gold), "details": details}
    )


def _group(name: str, rows: Sequence[Row]) -> Group:
    scored = [(row.score, str(row.details.get("cluster", row.id))) for row in rows if row.score is not None]
    values, clusters = [score for score, _ in scored], [cluster for _, cluster in scored]
    error = clustered_standard_error(values, clusters)
    return Group(
        name=name,
        score=_mean(values),
        standard_error=None if error is None else round(error, 6),
        n=len(values),
        unscored=_reasons(rows),
    )


def _reasons(rows: Sequence[Row]) -> dict[str, int]:
    return dict(sorted(Counter(row.note or "no score" for row in rows if row.score is None).items()))


def _mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), 6) if values else None


def _to_keep(value: Likelihood) -> list[Any]:
    return [value.total if value.known else None, value.greedy, value.tokens, value.cut]


def _kept(value: Sequence[Any]) -> Likelihood:
    total, greedy, tokens, cut = value
    return Likelihood(math.nan if total is None else float(total), bool(greedy), int(tokens), int(cut))
