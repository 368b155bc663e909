"""What a training set is, told before a step is trained: shares, lengths, and all that was left out, by name.

The mistakes of this trade are silent: everything masked, the stop token not learnt, half of the rows dropped. So the
audit is data (the trainer keeps it with its result), a summary for people, and two refusals: a set of which nothing is
left, and one in which no answer's stop token bears loss.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

from ilab.data import Record
from ilab.errors import InputError
from ilab.models.renderer import Renderer
from ilab.training.pieces import Cut, EncodeOptions, LeftOut
from ilab.training.records import RawSample

NAMED = 10  # ids that a message names


class RoleTokens(Record):
    """Tokens that the template writes for one role, headers included, and those of them that bear loss."""

    role: str
    tokens: int
    trained: int


class Lengths(Record):
    """Tokens per piece: extremes, median and 95th percentile (nearest rank)."""

    shortest: int
    median: int
    p95: int
    longest: int


class Audit(Record):
    """``rows`` were read, ``pieces`` are trained on.

    Of ``answers`` whose tokens bear loss, ``stopped`` end in a trained stop token (a document's end counts as an
    answer's). ``opening`` is what the template writes at the beginning of each answer, which bears loss too. ``lost``
    are tokens that were encoded and are in no piece; ``reasoning_ignored`` are rows with reasoning that the template
    does not write.
    """

    options: EncodeOptions
    template: str
    opening: str
    rows: int
    pieces: int
    tokens: int
    trained: int
    roles: tuple[RoleTokens, ...]
    answers: int
    stopped: int
    lengths: Lengths | None
    left_out: tuple[LeftOut, ...]
    truncated: tuple[str, ...]
    split: tuple[str, ...]
    lost: int
    reasoning_ignored: int

    def summary(self) -> str:
        """For people, some lines."""
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        lines = [
            f"{_rows(self.rows)}: {self.pieces:,} trained on{left}",
            f"{self.tokens:,} tokens, {_share(self.trained, self.tokens)} bear loss "
            f"(train_on: {self.options.train_on})",
        ]
        for role in self.roles:
            lines.append(f"  {role.role}: {role.tokens:,} tokens, {_share(role.trained, role.tokens)} bear loss")
        lines.append(f"stop token: trained in {_share(self.stopped, self.answers)} of {self.answers:,} answers")
        if self.opening.strip():
            lines.append(f"the template opens each answer with {self.opening!r}, which bears loss")
        if self.lengths:
            one = self.lengths
            spread = f"{one.shortest} to {one.longest} tokens, median {one.median}, 95 % up to {one.p95}"
            lines.append(f"lengths: {spread} (limit {self.options.max_length})")
        for names, what in ((self.truncated, "cut at the limit, without a stop token"), (self.split, "split")):
            if names:
                lines.append(f"{what}: {_names(names)}")
        for reason, gone in _by_reason(self.left_out).items():
            lines.append(f"left out, {reason}: {_names(gone)}")
        if self.lost:
            lines.append(f"tokens not trained on: {self.lost:,} ({_share(self.lost, self.lost + self.tokens)})")
        if self.reasoning_ignored:
            lines.append(f"reasoning that the template does not write, ignored: {_rows(self.reasoning_ignored)}")
        return "\n".join(lines)

    def check(self) -> None:
        """Raise InputError where this set must not be trained on."""
        over = [_named(one) for one in self.left_out if one.over_length]
        if over and self.options.over_length == "error":
            raise InputError(
                f"rows over train_sequence_length {self.options.max_length}: {_names(over)}",
                hint="raise train_sequence_length, or choose what becomes of them: -p train_over_length=drop, truncate "
                "or split",
            )
        if not self.pieces:
            first = f", the first for this: {self.left_out[0].reason}" if self.left_out else ": the dataset is empty"
            longer = "raise train_sequence_length, or take the beginning of long rows (-p train_over_length=truncate)"
            raise InputError(
                f"nothing to train on: {len(self.left_out)} of {_rows(self.rows)} left out{first}",
                hint=longer if over else "look at the rows: ilab data mask FILE",
            )
        if not self.stopped and all(one.role == "document" for one in self.roles):
            raise InputError(
                "this model has no token that ends a text, so the tuned model would never stop",
                hint="give its tokenizer_config.json an eos_token that its tokenizer.json has",
            )
        if not self.stopped:
            raise InputError(
                "no row trains a token that ends an answer, so the tuned model would never stop",
                hint="the chat template must put the model's stop token after each answer; see: ilab data mask FILE",
            )


class Tally:
    """Counts as samples are encoded; ``audit`` is the result."""

    def __init__(self, options: EncodeOptions, renderer: Renderer) -> None:
        self._options, self._renderer, self._talks = options, renderer, False
        self._writes_reasoning = renderer.writes("reasoning_content")
        self._rows = self._answers = self._stopped = self._lost = self._reasoning = 0
        self._lengths = array("q")
        self._tokens: Counter[str] = Counter()
        self._trained: Counter[str] = Counter()
        self._left_out: list[LeftOut] = []
        self._changed: dict[str, list[str]] = {"truncated": [], "split": []}

    def add(self, sample: RawSample, cut: Cut) -> None:
        """Count what ``sample`` became."""
        self._rows += 1
        self._lost += cut.lost
        self._talks = self._talks or sample.text is None
        self._left_out += cut.left_out
        if cut.change:
            self._changed[cut.change].append(sample.id)
        if not self._writes_reasoning:
            self._reasoning += any(message.get("reasoning_content") for message in sample.messages)
        for piece in cut.pieces:
            self._lengths.append(len(piece.encoded.ids))
            self._answers += piece.answers
            self._stopped += piece.stopped
            for role, (tokens, trained) in piece.counts().items():
                self._tokens[role] += tokens
                self._trained[role] += trained

    def audit(self) -> Audit:
        """All that was counted."""
        roles = [RoleTokens(role=role, tokens=self._tokens[role], trained=self._trained[role]) for role in self._tokens]
        return Audit(
            options=self._options,
            template=self._renderer.template_name,
            opening=self._renderer.opening if self._talks else "",
            rows=self._rows,
            pieces=len(self._lengths),
            tokens=self._tokens.total(),
            trained=self._trained.total(),
            roles=tuple(sorted(roles, key=lambda one: one.role)),
            answers=self._answers,
            stopped=self._stopped,
            lengths=_lengths(self._lengths),
            left_out=tuple(self._left_out),
            truncated=tuple(self._changed["truncated"]),
            split=tuple(self._changed["split"]),
            lost=self._lost,
            reasoning_ignored=self._reasoning,
        )


def _lengths(found: array[int]) -> Lengths | None:
    if not found:
        return None
    ordered = sorted(found)

    def rank(percent: int) -> int:
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    return Lengths(shortest=ordered[0], median=rank(50), p95=rank(95), longest=ordered[-1])


def _by_reason(left_out: tuple[LeftOut, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in left_out:
        found.setdefault("over the limit" if one.over_length else one.reason, []).append(_named(one))
    return found


def _named(one: LeftOut) -> str:
    return f"{one.id} in row {one.row}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} ({', '.join(names[:NAMED])}{more})"


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _share(part: int, whole: int) -> str:
    """A percentage that is 0 % or 100 % only where it is exactly that."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
