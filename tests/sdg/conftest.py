"""Leaves, chunks and jobs for the tests of synthetic data generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.data import Chunk, Kind, Leaf, Place, QuestionAnswer, SeedExample, digest_text, short
from ilab.sdg.flow import load_flow
from ilab.sdg.generate import Job

PLACE = Place(file="qna.yaml", line=3)
SEEDS = {
    "knowledge": [("A lamp has a lens.", "What has a lamp?", "a lens"), ("Oil burns.", "What burns?", "oil")],
    "grounded": [
        ("The museum wants stamps in October.", "Make a record.", "stamps | museum | October"),
        ("The castle wants lemons in March.", "Make a record.", "lemons | castle | March"),
        ("The library wants nails in August.", "Make a record.", "nails | library | August"),
    ],
    "freeform": [
        (None, "Put a lesson with Marta at 14 in my calendar.", "[14] lesson with Marta"),
        (None, "Put a dinner with Felix at 10 in my calendar.", "[10] dinner with Felix"),
        (None, "Put a meeting with Nora at 11 in my calendar.", "[11] meeting with Nora"),
    ],
}


def leaf(path: str, kind: Kind = "knowledge", seeds: list[tuple[str | None, str, str]] | None = None) -> Leaf:
    examples = tuple(
        SeedExample(context=c, pairs=(QuestionAnswer(question=q, answer=a, place=PLACE),), place=PLACE)
        for c, q, a in (seeds or SEEDS[kind])
    )
    return Leaf(
        path=path,
        kind=kind,
        version=3,
        created_by="tests",
        task="do it",
        domain="lamps",
        seeds=examples,
        digest=digest_text(repr(examples)),
        place=PLACE,
    )


def chunk(path: str, text: str, heading: str = "Towers") -> Chunk:
    return Chunk(
        id=short(digest_text(text)),
        leaf=path,
        document="d" * 64,
        source="tower.md",
        heading=(heading,),
        span=(0, len(text)),
        text=text,
        tokens=len(text.split()),
    )


def passage(number: int, sentences: int = 6) -> str:
    return " ".join(
        f"The tower number {number} has the lamp {n} of colour {number * 31 + n}." for n in range(sentences)
    )


@pytest.fixture
def make_leaf() -> Callable[..., Leaf]:
    return leaf


@pytest.fixture
def make_chunk() -> Callable[..., Chunk]:
    return chunk


@pytest.fixture
def make_passage() -> Callable[..., str]:
    return passage


@pytest.fixture
def memos_in() -> Iterator[Callable[[Path], Callable[[str], Memo]]]:
    """Opens the memos in a folder, each once, and closes them after the test."""
    opened: dict[Path, Memo] = {}

    def folder(path: Path) -> Callable[[str], Memo]:
        def memo(name: str) -> Memo:
            if path / name not in opened:
                opened[path / name] = Memo(path / name)
            return opened[path / name]

        return memo

    yield folder
    for found in opened.values():
        found.close()


@pytest.fixture
def memos(memos_in: Callable[[Path], Callable[[str], Memo]], tmp_path: Path) -> Callable[[str], Memo]:
    return memos_in(tmp_path / "memo")


@pytest.fixture
def make_job(memos: Callable[[str], Memo]) -> Callable[..., Job]:
    """A job of one knowledge leaf with two chunks under the ``simple`` flow; fields can be given."""

    def make(**fields: Any) -> Job:
        path = "knowledge/towers"
        job = Job(
            leaves=[leaf(path)],
            chunks=[chunk(path, passage(1)), chunk(path, passage(2))],
            held_out=[],
            flow=load_flow("simple"),
            scale_factor=3,
            seed=42,
            memo=memos,
            emit=Bus().for_step("generate"),
            stopping=lambda: False,
            teacher_name="teacher",
        )
        return replace(job, **fields)

    return make
