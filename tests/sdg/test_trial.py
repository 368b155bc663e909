"""A run that stops early where nothing passes; flows of one's own by name; a cap on answers."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint, data_home
from ilab.core.events import Bus
from ilab.core.memo import Memo
from ilab.core.step import Found
from ilab.data import Leaf, Place, QuestionAnswer, Rejected, SeedExample
from ilab.errors import ServiceError
from ilab.models.openai import OpenAIModel
from ilab.sdg.asking import AskingBlock
from ilab.sdg.flow import SHIPPED, load_flow
from ilab.sdg.generate import Job, produce
from ilab.sdg.stage import find_flow, found_flow, tokens_of
from ilab.sdg.trial import FIRST, Trial
from ilab.testing.teacher import Teacher, answer_by_rule, serve


class Hopeless(Exception):
    """Made from the ids of what was refused."""


def refused(index: int, reason: str = "no") -> list[Rejected]:
    return [Rejected(id=str(index), leaf="l", block="b", reason=reason, row={})]


def error(entries: list[Rejected]) -> Exception:
    return Hopeless(" ".join(entry.id for entry in entries))


@pytest.mark.parametrize("order", list(itertools.permutations([0, 2, 3])))
def test_it_fails_with_the_last_of_the_first_that_ask_in_whatever_order(order: tuple[int, ...]) -> None:
    trial = Trial([True, False, True, True, True], error, rows=3)
    trial.finished(1, 0, refused(1))  # by rule
    trial.finished(4, 0, refused(4))  # behind the first three
    for index in order[:-1]:
        trial.finished(index, 0, refused(index))
    with pytest.raises(Hopeless, match=r"^0 2 3$"):
        trial.finished(order[-1], 0, refused(order[-1]))


@pytest.mark.parametrize("passing", [(1, []), (0, refused(1, "the teacher failed: the budget is spent"))])
def test_one_sample_or_a_row_that_nobody_was_asked_about_lets_it_pass(passing: tuple[int, list[Rejected]]) -> None:
    trial = Trial([True] * 5, error, rows=3)
    trial.finished(0, 0, refused(0))
    trial.finished(1, *passing)
    for index in (2, 3, 4):
        trial.finished(index, 0, refused(index))


def test_a_short_run_needs_none() -> None:
    trial = Trial([True] * 3, error, rows=3)
    for index in range(3):
        trial.finished(index, 0, refused(index))


def job(teacher: Teacher, memos: Callable[[str], Memo], seeds: int) -> Job:
    place = Place(file="qna.yaml", line=1)
    pairs = [
        SeedExample(pairs=(QuestionAnswer(question=f"Say {n}?", answer=f"{n}.", place=place),), place=place)
        for n in range(seeds)
    ]
    leaf = Leaf(
        path="compositional_skills/saying",
        kind="freeform",
        version=3,
        created_by="x",
        task="Say a number",
        seeds=tuple(pairs),
        digest="d",
        place=place,
    )
    return Job(
        leaves=[leaf],
        chunks=[],
        held_out=[],
        flow=load_flow("simple"),
        scale_factor=1,
        seed=1,
        memo=memos,
        emit=Bus().for_step("generate"),
        stopping=lambda: False,
        teacher=OpenAIModel(Endpoint(url=teacher.url)),
        teacher_name="teacher",
        in_flight=4,
    )


def test_a_teacher_that_nobody_can_read_is_not_asked_to_the_end(memos: Callable[[str], Memo]) -> None:
    with serve(lambda body: "no") as teacher:
        with pytest.raises(ServiceError, match=f"first {FIRST} input rows gave no sample.*by block 'write'") as caught:
            produce(job(teacher, memos, 300))
        assert "take another teacher" in caught.value.hint
        assert len(teacher.calls) < 600  # of 900


def test_a_teacher_that_fails_now_and_then_is(memos: Callable[[str], Memo]) -> None:
    def seldom(body: dict[str, Any]) -> str:
        return answer_by_rule(body) if "Say 63?" in body["messages"][-1]["content"] else "no"

    with serve(seldom) as teacher:
        assert len(produce(job(teacher, memos, 80)).samples) == 1


# -- flows of one's own, and the cap -----------------------------------------------------------------------------------


def test_a_flow_of_the_user_or_the_site_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    monkeypatch.setenv("XDG_DATA_DIRS", f"{site}:/usr/share")
    for home, name in ((site / "instructlab", "ours"), (data_home(), "full")):
        shutil.copytree(SHIPPED / "simple", home / "sdg" / "pipelines" / name)
    simple = find_flow("simple", tmp_path)
    ours = find_flow("ours", tmp_path)
    assert ours.digest == simple.digest and not (ours.details or {}).get("note")
    own = find_flow("full", tmp_path)
    assert own.digest == simple.digest
    assert (own.details or {})["note"] == f"the flow 'full' is your own, in {data_home() / 'sdg/pipelines/full'}"


def test_a_cap_is_part_of_what_a_flow_is() -> None:
    plain, capped = find_flow("full", Path()), find_flow("full", Path(), 300)
    assert capped.digest == f"{plain.digest}:300"
    assert (tokens_of(plain.digest), tokens_of(capped.digest)) == (None, 300)
    assert max(limits(plain)) > 300 and max(limits(capped)) == 300
    assert [min(limit, 300) for limit in limits(plain)] == limits(capped)


def limits(found: Found) -> list[int]:
    flows = found_flow(found).flows.values()
    blocks = [block for flow in flows for branch in flow.branches for block in branch.blocks]
    return [block.max_tokens for block in blocks if isinstance(block, AskingBlock)]
