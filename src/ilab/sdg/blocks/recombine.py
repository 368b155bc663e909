"""New skill examples by recombining slot values and sentence frames of the leaf's own. Not a language model."""

from __future__ import annotations

from typing import Any, ClassVar

from ilab.data import seed_from
from ilab.sdg.block import Context, Count, Reject, Row, RuleBlock, content_name, resolve_count
from ilab.sdg.recombine import Seed, analyse, recombine


class Recombine(RuleBlock):
    """At most ``per_seed`` rows for each seed example, none equal to a seed. Children are named by their
    content.
    """

    type: ClassVar[str] = "recombine"
    seeded: ClassVar[bool] = True

    per_seed: Count = "scale"

    def needs(self) -> frozenset[str]:
        return frozenset({"seeds"})

    def adds(self) -> frozenset[str]:
        return frozenset({"question", "answer", "context"})

    def derive(self, row: Row, context: Context) -> list[tuple[str, dict[str, Any]]]:
        seeds = [Seed(seed["question"], seed["context"], seed["answer"]) for seed in row.columns["seeds"]]
        known = {(seed.question, seed.context, seed.answer) for seed in seeds}
        limit = resolve_count(self.per_seed, context.scale) * len(seeds)
        made: dict[str, dict[str, Any]] = {}
        for found in recombine(seeds, limit, seed_from(row.id, context.seed)):
            if (found.question, found.context, found.answer) not in known:
                columns = {"question": found.question, "answer": found.answer, "context": found.context}
                made[f"mix-{content_name(columns)}"] = columns
        if not made:
            raise Reject("nothing to recombine", analyse(seeds).reason or "every combination is a seed example")
        return list(made.items())
