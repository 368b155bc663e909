"""Training rows to token ids with a mask, and the audit that comes before any step is trained.

What bears loss is decided by the one ``Renderer`` that serving and packaging use too. Rows that are too long or have
no trained token are left out *by name*, never in silence; a dataset in which no stop token is trained is refused,
because the model would never learn to end an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ilab.data import TrainingRow, seed_from
from ilab.errors import InputError
from ilab.models.renderer import Renderer


@dataclass(frozen=True)
class EncodedSet:
    """``ids[i]`` and ``trained[i]`` belong to ``rows[i]``. ``left_out`` are (row id, reason)."""

    rows: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    trained: tuple[tuple[bool, ...], ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.ids]

    @property
    def trained_counts(self) -> list[int]:
        """Tokens that bear loss. The first token of a row is never predicted, so it never counts."""
        return [sum(mask[1:]) for mask in self.trained]


def split_rows(data: EncodedSet, share: float, seed: int) -> tuple[EncodedSet, EncodedSet]:
    """(training, held out): each row's place derives from its id alone, so another row more moves nobody.

    Raises InputError when nothing is left to train on.
    """
    if not share:
        return data, EncodedSet((), (), (), ())
    held = [seed_from(f"validation/{row}", seed) / (1 << 63) < share for row in data.rows]
    if all(held):
        raise InputError("every row is held out of training", hint="lower train_validation_share")

    def part(wanted: bool) -> EncodedSet:
        kept = [index for index, out in enumerate(held) if out is wanted]
        return EncodedSet(
            tuple(data.rows[i] for i in kept),
            tuple(data.ids[i] for i in kept),
            tuple(data.trained[i] for i in kept),
            () if wanted else data.left_out,
        )

    return part(False), part(True)


def encode_rows(rows: Sequence[TrainingRow], renderer: Renderer, max_length: int) -> EncodedSet:
    """Encode and audit. Raises InputError when nothing is left, or when no stop token is trained anywhere."""
    kept: list[tuple[str, tuple[int, ...], tuple[bool, ...]]] = []
    left_out: list[tuple[str, str]] = []
    stops = 0
    for row in rows:
        encoded = renderer.encode(row.messages, row.train_on)
        if len(encoded.ids) > max_length:
            left_out.append((row.id, f"{len(encoded.ids)} tokens, over train_sequence_length {max_length}"))
        elif not any(encoded.trained[1:]):
            left_out.append((row.id, "no token that bears loss"))
        else:
            kept.append((row.id, tuple(encoded.ids), tuple(encoded.trained)))
            stops += any(t and i in renderer.stop_ids for i, t in zip(encoded.ids, encoded.trained, strict=True))
    if not kept:
        reason = left_out[0][1] if left_out else "the dataset is empty"
        raise InputError(
            f"nothing to train on: {len(left_out)} of {len(rows)} rows left out, the first because of {reason}",
            hint="raise train_sequence_length, or look at the samples: ilab report open",
        )
    if not stops:
        raise InputError(
            "no row trains a token that ends an answer, so the tuned model would never stop",
            hint="the chat template must put the model's stop token after each answer",
        )
    names, ids, trained = zip(*kept, strict=True)
    return EncodedSet(names, ids, trained, tuple(left_out))
