"""What a flow starts from: leaves and chunks as input rows.

    chunk   one row per chunk of a knowledge leaf
    seed    knowledge: one row per chunk and seed example; skills: one row per seed example
    leaf    one row per leaf, with all its seed examples

Columns carry upstream's names where upstream has one. Ids name content, never position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ilab.core.step import fingerprint
from ilab.data import Chunk, Leaf, SeedExample, short
from ilab.sdg.block import Row, Trace
from ilab.sdg.flow import Input


def input_rows(source: Input, leaf: Leaf, chunks: Sequence[Chunk]) -> list[Row]:
    """The input rows of ``leaf``; ``chunks`` are the leaf's own. Equal chunks, or equal seeds, give one row."""
    trace = Trace(leaf_digest=leaf.digest)
    columns = {"domain": leaf.domain, "document_outline": leaf.outline, "task_description": leaf.task}
    if source == "leaf":
        rows = [Row(leaf.path, leaf.path, {**columns, "seeds": _seeds(leaf)}, trace)]
    elif source == "chunk":
        rows = [_chunk_row(chunk, leaf, columns, trace) for chunk in chunks]
    elif leaf.kind == "knowledge":
        rows = [
            _chunk_row(chunk, leaf, columns, trace).child(f"seed-{_name(seed)}", _icl(seed))
            for chunk in chunks
            for seed in leaf.seeds
        ]
    else:
        parent = Row(leaf.path, leaf.path, columns, trace)
        rows = [parent.child(f"seed-{_name(seed)}", _skill(seed)) for seed in leaf.seeds]
    return list({row.id: row for row in reversed(rows)}.values())[::-1]


def _chunk_row(chunk: Chunk, leaf: Leaf, columns: dict[str, Any], trace: Trace) -> Row:
    trace = replace(
        trace, document=chunk.document, source=chunk.source, chunk=chunk.id, page=chunk.page, span=chunk.span
    )
    own = {"document": chunk.text, "headings": list(chunk.heading)}
    return Row(f"{leaf.path}#{chunk.id}", leaf.path, {**columns, **own}, trace)


def _seeds(leaf: Leaf) -> list[dict[str, Any]]:
    """Each pair with the context it is asked under (skills), or the passage that supports it (knowledge)."""
    knowledge = leaf.kind == "knowledge"
    return [
        {
            "question": pair.question,
            "answer": pair.answer,
            "context": None if knowledge else seed.context,
            "evidence": seed.context if knowledge else None,
        }
        for seed in leaf.seeds
        for pair in seed.pairs
    ]


def _icl(seed: SeedExample) -> dict[str, Any]:
    pairs = [{"question": pair.question, "answer": pair.answer} for pair in seed.pairs]
    return {"icl_document": seed.context or "", "examples": pairs}


def _skill(seed: SeedExample) -> dict[str, Any]:
    pair = seed.pairs[0]
    return {"seed_question": pair.question, "seed_response": pair.answer, "seed_context": seed.context}


def _name(seed: SeedExample) -> str:
    return short(fingerprint(seed.context, [[pair.question, pair.answer] for pair in seed.pairs]))
