"""The model under test, in this process and at an endpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.core.events import Bus, Event
from ilab.core.memo import Memo
from ilab.data import Message
from ilab.errors import Stopped
from ilab.evaluation.subject import Asking, EndpointSubject, LocalSubject, endpoint_subject
from ilab.models.openai import OpenAIModel
from ilab.testing.teacher import Faults, serve

ASKED = [[Message(role="user", content=f"How many locks, {name}?")] for name in ("Ada", "Bo", "Cy")]


@pytest.fixture
def memo(tmp_path: Path) -> Iterator[Memo]:
    kept = Memo(tmp_path / "memo")
    yield kept
    kept.close()


def asking(memo: Memo, stopping: Any = lambda: False) -> Asking:
    return Asking(memo, Bus().for_step("answers"), stopping)


def test_a_folder_answers_once(tiny_model: Path, memo: Memo, tmp_path: Path) -> None:
    first = LocalSubject("m", tiny_model, asking(memo), device="cpu")
    answers = first.answer(ASKED, max_tokens=8)
    assert all(answers) and memo.writes == 3
    copy = tmp_path / "renamed"
    shutil.copytree(tiny_model, copy)
    again = LocalSubject("another name", copy, asking(memo), device="cpu")
    assert again.answer(ASKED[::-1], max_tokens=8) == answers[::-1]
    assert memo.writes == 3 and "_model" not in vars(again)  # not even loaded
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    LocalSubject("m", copy, asking(memo), device="cpu").answer(ASKED[:1], max_tokens=8)
    assert memo.writes == 4  # other contents are another model
    again.answer(ASKED[:1], max_tokens=9)
    assert memo.writes == 5


def test_seeds_come_of_the_text(tiny_model: Path, tmp_path: Path) -> None:
    def draw(name: str, conversations: Any, seed: int) -> list[str | None]:
        kept = Memo(tmp_path / name)
        found = LocalSubject("m", tiny_model, asking(kept), device="cpu").answer(
            conversations, max_tokens=12, temperature=1.0, seed=seed
        )
        kept.close()
        return found

    drawn = draw("a", ASKED, 0)
    assert draw("b", ASKED[::-1], 0) == drawn[::-1]
    assert draw("c", ASKED, 1) != drawn


def test_too_long_a_conversation_is_no_answer(tiny_model: Path, memo: Memo) -> None:
    long = [Message(role="user", content="word " * 400)]
    found = LocalSubject("m", tiny_model, asking(memo), device="cpu").answer([long, ASKED[0]], max_tokens=4)
    assert found[0] is None and found[1] is not None and memo.writes == 1


def test_stop_and_go_on(tiny_model: Path, memo: Memo) -> None:
    told: list[Event] = []
    emit = Bus([told.append]).for_step("answers")
    with pytest.raises(Stopped):
        LocalSubject("m", tiny_model, Asking(memo, emit, lambda: len(told) > 1), device="cpu").answer(
            ASKED, max_tokens=4
        )
    assert memo.writes == 2
    LocalSubject("m", tiny_model, asking(memo), device="cpu").answer(ASKED, max_tokens=4)
    assert memo.writes == 3


def name_of(body: dict[str, Any]) -> str:
    return f"It has 14, {body['messages'][-1]['content'].split()[-1].strip('?')}. "


def test_an_endpoint(memo: Memo) -> None:
    with serve(name_of, models=("student",)) as server:
        subject = endpoint_subject("candidate", Endpoint(url=server.url), asking(memo), served="student")
        assert subject.answer(ASKED, max_tokens=8) == ["It has 14, Ada.", "It has 14, Bo.", "It has 14, Cy."]
        sent = server.calls[-1]
        assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("student", 8, 0.0) and "seed" not in sent
        before = len(server.calls)
        assert subject.answer(ASKED, max_tokens=8)[0] == "It has 14, Ada."
        assert len(server.calls) == before
        subject.answer(ASKED, max_tokens=8, temperature=0.7)
        seeds = [call["seed"] for call in server.calls[before:]]
        assert len(seeds) == len(set(seeds)) == 3


def test_two_servers_are_two_models(memo: Memo) -> None:
    with serve(lambda body: "one", models=("m",)) as one, serve(lambda body: "two", models=("m",)) as two:
        found = [
            endpoint_subject("m", Endpoint(url=server.url), asking(memo)).answer(ASKED[:1], max_tokens=4)
            for server in (one, two)
        ]
    assert found == [["one"], ["two"]]


def test_failed_answers_are_none_and_not_kept(memo: Memo) -> None:
    def bare(url: str) -> EndpointSubject:
        model = OpenAIModel(Endpoint(url=url, timeout=0.5), tries=2, backoff=0.01)
        return EndpointSubject("m", model, asking(memo), served="m", identity="digest", at_once=1)

    with serve(name_of, models=("m",), faults=Faults(plan={0: "400", 1: "500", 2: "500"})) as server:
        assert bare(server.url).answer(ASKED, max_tokens=8) == [None, None, "It has 14, Cy."]
    with serve(name_of, models=("m",)) as server:
        assert all(bare(server.url).answer(ASKED, max_tokens=8))
        assert len(server.calls) == 2
