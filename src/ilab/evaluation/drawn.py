"""``--limit``: a few questions of each group, always the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ilab.data import seed_from

T = TypeVar("T")


def drawn(questions: Sequence[T], limit: int | None, seed: int, named: Callable[[T], tuple[str, str]]) -> list[T]:
    """At most ``limit`` questions of each group (all, without one), in the order of ``questions``.

    ``named`` gives (group, id) of a question. Which are drawn follows from ids and seed, not from the order.
    """
    if not limit:
        return list(questions)
    ranked: dict[str, list[str]] = {}
    for group, name in map(named, questions):
        ranked.setdefault(group, []).append(name)
    kept = {
        (group, name)
        for group, names in ranked.items()
        for name in sorted(names, key=lambda name: (seed_from(name, seed), name))[:limit]
    }
    return [one for one in questions if named(one) in kept]
