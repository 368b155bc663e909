"""The leaf's own seed examples as rows: what people wrote is worth training on."""

from __future__ import annotations

from typing import Any, ClassVar

from ilab.sdg.block import Context, Row, RuleBlock, content_name


class Seeds(RuleBlock):
    """Adds ``question``, ``answer``, ``context`` (None for knowledge) and ``evidence`` (the seed's passage
    there).
    """

    type: ClassVar[str] = "seeds"

    def needs(self) -> frozenset[str]:
        return frozenset({"seeds"})

    def adds(self) -> frozenset[str]:
        return frozenset({"question", "answer", "context", "evidence"})

    def derive(self, row: Row, context: Context) -> list[tuple[str, dict[str, Any]]]:
        # Named by content: an example added above must not rename the others. Equal examples are one.
        made = {f"seed-{content_name(seed)}": dict(seed) for seed in row.columns["seeds"]}
        return list(made.items())
