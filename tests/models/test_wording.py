"""What a server refuses is worded otherwise, once, and no request is lost by it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ilab.config import Endpoint
from ilab.data import Message
from ilab.models.chat import JSON_OBJECT, Refused, Reply, Request, Sampling, json_schema
from ilab.models.openai import OpenAIModel
from ilab.models.wording import AS_ASKED, Wording, other_limit
from ilab.testing.teacher import Faults, Features, Teacher, serve

SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
SAID = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


def echo(body: dict[str, Any]) -> str:
    return f"text of {(body['messages'][-1]['content'] if 'messages' in body else body['prompt'])}"


def request(text: str, **sampling: Any) -> Request:
    return Request("teacher", (Message(role="user", content=text),), Sampling(**sampling))


def ask(teacher: Teacher, *rounds: list[Request]) -> list[Reply]:
    """Each round's requests at once, through one client."""

    async def run() -> list[Reply]:
        client = OpenAIModel(Endpoint(url=teacher.url), backoff=0.02)
        try:
            return [reply for one in rounds for reply in await asyncio.gather(*(client.complete(r) for r in one))]
        finally:
            await client.close()

    return asyncio.run(run())


def test_the_name_of_the_limit_is_learnt_from_the_refusal_and_no_row_is_lost() -> None:
    first, second = ([request(f"{part}{n}", max_tokens=9) for n in range(8)] for part in "ab")
    with serve(echo, features=Features(limit="max_completion_tokens")) as teacher:
        replies = ask(teacher, first, second)
    assert [reply.text for reply in replies] == [f"text of {part}{n}" for part in "ab" for n in range(8)]
    refused = [call for call in teacher.calls if "max_tokens" in call]
    assert len(refused) <= 8 and all(call["messages"][0]["content"].startswith("a") for call in refused)
    assert {call["max_completion_tokens"] for call in teacher.calls if call not in refused} == {9}
    assert len(teacher.calls) == 16 + len(refused)


def test_other_refusals_teach_nothing() -> None:
    with serve(echo, faults=Faults(plan={0: "400"})) as teacher:
        with pytest.raises(Refused, match="too long for the model"):
            ask(teacher, [request("a", max_tokens=9)])
        ask(teacher, [request("a", max_tokens=9)])
    assert [call["max_tokens"] for call in teacher.calls] == [9, 9]
    assert not other_limit("'max_tokens' or 'max_completion_tokens' is too large: 4096")
    assert other_limit(SAID)


@pytest.mark.parametrize(
    ("form", "tried"),
    [(json_schema("w", SCHEMA), ["json_schema", "json_object", None]), (JSON_OBJECT, ["json_object", None])],
)
def test_a_server_without_json_is_asked_in_words(form: dict[str, Any], tried: list[str | None]) -> None:
    with serve(echo, features=Features(json="refused")) as teacher:
        replies = ask(teacher, [request("a", response_format=form)], [request("b", response_format=form)])
    assert [reply.text for reply in replies] == ["text of a", "text of b"]
    kinds = [call.get("response_format", {}).get("type") for call in teacher.calls]
    assert kinds == [*tried, None]


def test_a_server_without_lists_of_answers_is_asked_in_words() -> None:
    with serve(echo, features=Features(choice="refused")) as teacher:
        replies = ask(teacher, [request("a", choices=("yes", "no"))], [request("b", choices=("yes", "no"))])
    assert [reply.text for reply in replies] == ["text of a", "text of b"]
    assert ["structured_outputs" in call for call in teacher.calls] == [True, False, False]
    with serve(echo) as teacher:
        [reply] = ask(teacher, [request("a", choices=("yes", "no"))])
    assert reply.text == "yes"
    assert teacher.calls[0]["guided_choice"] == ["yes", "no"]


def test_when_all_wordings_are_refused_the_first_refusal_is_told() -> None:
    plan = dict.fromkeys(range(3), "400")
    with serve(echo, faults=Faults(plan=plan)) as teacher:  # type: ignore[arg-type]
        with pytest.raises(Refused, match="too long for the model"):
            ask(teacher, [request("a", response_format=json_schema("w", SCHEMA))])
        ask(teacher, [request("a", response_format=json_schema("w", SCHEMA))])
    assert json.loads(json.dumps(teacher.calls[3]))["response_format"]["type"] == "json_schema"  # nothing was learnt


def test_several_things_are_worded_otherwise_together() -> None:
    features = Features(limit="max_completion_tokens", json="refused")
    with serve(echo, features=features) as teacher:
        [reply] = ask(teacher, [request("a", max_tokens=5, response_format=JSON_OBJECT)])
    assert reply.text == "text of a"
    assert teacher.calls[-1].keys() == {"model", "messages", "temperature", "max_completion_tokens"}


def test_plain_completions_keep_the_older_name() -> None:
    wording = Wording(limit="max_completion_tokens")
    assert wording.apply({"max_tokens": 3}, chat=False) == {"max_tokens": 3}
    assert wording.apply({"max_tokens": 3}) == {"max_completion_tokens": 3}
    assert AS_ASKED.other({"max_tokens": 3}, "too hot") is None
