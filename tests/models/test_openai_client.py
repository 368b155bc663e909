"""The endpoint client against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from ilab.config import Endpoint
from ilab.core.step import fingerprint
from ilab.data import Message
from ilab.errors import InputError, ServiceError
from ilab.models.chat import JSON_OBJECT, Refused, Reply, Request, Sampling, json_schema
from ilab.models.completion import Failure, parse_reply, retry_after
from ilab.models.openai import OpenAIModel
from ilab.models.secret import read_secret
from ilab.testing.teacher import Faults, Features, Teacher, serve

ECHO = "text of {}"


def echo(body: dict) -> str:
    return ECHO.format(body["messages"][-1]["content"])


def request(text: str, model: str = "teacher", **sampling: object) -> Request:
    return Request(model, (Message(role="user", content=text),), Sampling(**sampling))


def ask(teacher: Teacher | str, *requests: Request, endpoint: dict | None = None, **options: object) -> list[Reply]:
    """All requests at once through one client."""
    url = teacher if isinstance(teacher, str) else teacher.url

    async def run() -> list[Reply]:
        client = OpenAIModel(Endpoint(url=url, **(endpoint or {})), backoff=0.02, **options)
        try:
            return await asyncio.gather(*(client.complete(one) for one in requests))
        finally:
            await client.close()

    return asyncio.run(run())


def test_request_and_reply_are_carried_whole() -> None:
    with serve(echo) as teacher:
        [reply] = ask(teacher, request("hello", temperature=0.5, max_tokens=7, top_p=0.9, seed=3, stop=("x",), n=2))
    assert [choice.text for choice in reply.choices] == ["text of hello"] * 2
    assert reply.usage == {"prompt_tokens": 1, "completion_tokens": 6}
    assert reply.reported == {"model": "teacher", "system_fingerprint": "scripted"}
    assert teacher.calls == [
        {
            "model": "teacher",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0.5,
            "max_tokens": 7,
            "top_p": 0.9,
            "seed": 3,
            "stop": ["x"],
            "n": 2,
        }
    ]


@pytest.mark.parametrize("fault", ["500", "503", "429", "429-seconds", "429-date", "reset", "malformed", "empty"])
def test_every_passing_fault_is_asked_again(fault: str) -> None:
    with serve(echo, faults=Faults(plan={0: fault, 1: fault})) as teacher:
        replies = ask(teacher, request("a"), request("b"), request("c"))
    assert [reply.text for reply in replies] == [ECHO.format(name) for name in "abc"]
    assert teacher.faulty == [fault, fault]
    assert len(teacher.calls) == 5


def test_attempts_that_fail_are_counted() -> None:
    with serve(echo, faults=Faults(plan={0: "500", 1: "malformed"})) as teacher:

        async def run() -> int:
            model = OpenAIModel(Endpoint(url=teacher.url), backoff=0.01)
            try:
                await model.complete(request("a"))
                return int(model.condition()["failed"])
            finally:
                await model.close()

        assert asyncio.run(run()) == 2


def test_a_silent_server_is_left_after_the_time_out() -> None:
    with serve(echo, faults=Faults(plan={0: "silent"})) as teacher:
        [reply] = ask(teacher, request("a"), endpoint={"timeout": 0.3})
    assert reply.text == "text of a"
    assert len(teacher.calls) == 2


def test_a_request_that_always_fails_ends_as_retryable_error_and_harms_no_other() -> None:
    def script(body: dict) -> str:
        return echo(body)

    plan = dict.fromkeys(range(3), "500")
    with serve(script, faults=Faults(plan=plan)) as teacher:
        with pytest.raises(ServiceError) as caught:
            ask(teacher, request("a"), tries=3)
        assert caught.value.retryable
        assert "HTTP 500: injected" in caught.value.message
        assert len(teacher.calls) == 3
        assert ask(teacher, request("a"), tries=3)[0].text == "text of a"


def test_retry_after_seconds_are_waited_for() -> None:
    with serve(echo, faults=Faults(plan={0: "429-seconds"})) as teacher:

        async def run() -> float:
            client = OpenAIModel(Endpoint(url=teacher.url), backoff=0.001)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await client.complete(request("a"))
            await client.close()
            return loop.time() - began

        # A lower bound only: the server asked for one second and the back-off alone would be a millisecond.
        assert asyncio.run(run()) >= 1.0


def test_retry_after_header_forms() -> None:
    assert retry_after("2.5", 0) == 2.5
    assert retry_after("-3", 0) == 0
    assert retry_after("Thu, 01 Jan 1970 00:01:40 GMT", 40) == 60
    assert retry_after("Thu, 01 Jan 1970 00:01:40 GMT", 400) == 0
    assert retry_after("soon", 0) == retry_after("", 0) == 0


def test_an_outage_is_waited_out_with_few_probes() -> None:
    with serve(echo, faults=Faults(outage_after=5, outage=2.0)) as teacher:
        replies = ask(teacher, *(request(str(n)) for n in range(60)), in_flight=8)
    assert [reply.text for reply in replies] == [ECHO.format(n) for n in range(60)]
    # 60 answers, those in flight when it began, and probes of growing distance; not hundreds of tries.
    assert len(teacher.calls) < 60 + 30


def test_an_outage_that_lasts_ends_the_run_and_says_what_to_do() -> None:
    with serve(echo, faults=Faults(outage_after=0, outage=60)) as teacher, pytest.raises(ServiceError) as caught:
        ask(teacher, *(request(str(n)) for n in range(8)), outage_limit=0.5)
    assert not caught.value.retryable
    assert caught.value.where == teacher.url
    assert "run the same command again" in caught.value.hint


def test_one_impossible_request_is_no_outage() -> None:
    """The breaker opens, the probe passes, and the failures count against that request alone."""

    with serve(echo, faults=Faults(plan=dict.fromkeys([0, 1, 2, 3, 4, 6, 7], "500"))) as teacher:
        with pytest.raises(ServiceError) as caught:
            ask(teacher, request("a"), tries=6, in_flight=1)
        assert caught.value.retryable
    assert [call["messages"][0]["content"] for call in teacher.calls] == ["a"] * 5 + ["ping", "a", "a"]


def test_no_server_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ServiceError) as caught:
            ask(url, request("a"))
    assert caught.value.where == url
    assert "ilab model serve" in caught.value.hint
    assert "where.teacher.url" in caught.value.hint


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost:8000/v1", "file:///etc/passwd", "http://", ""])
def test_a_wrong_url_is_the_users(url: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(url, request("a"))
    assert "http://127.0.0.1:8000/v1" in caught.value.hint


def test_an_unknown_model_names_the_served_ones_before_any_call() -> None:
    with serve(echo, models=("granite", "mixtral")) as teacher, pytest.raises(ServiceError) as caught:
        ask(teacher, request("a", model="granit"))
    assert "granite, mixtral" in caught.value.hint
    assert teacher.calls == []


def test_a_refused_request_carries_the_servers_words() -> None:
    with serve(echo, faults=Faults(plan={0: "400"})) as teacher, pytest.raises(Refused) as caught:
        ask(teacher, request("a"))
    assert caught.value.message == "HTTP 400: this request is too long for the model"
    assert len(teacher.calls) == 1


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    file = tmp_path / "key"
    file.write_text("sk-very-secret\n")
    with serve(echo, key="sk-very-secret") as teacher:
        assert ask(teacher, request("a"), endpoint={"api_key": "env:TEACHER_KEY"})[0].text == "text of a"
        assert ask(teacher, request("a"), endpoint={"api_key": f"file:{file}"})[0].text == "text of a"
        monkeypatch.setenv("TEACHER_KEY", "sk-other-secret")
        with pytest.raises(ServiceError) as caught:  # this server repeats the wrong key in its error
            ask(teacher, request("a"), endpoint={"api_key": "env:TEACHER_KEY"})
    assert "wrong key: Bearer ***" in caught.value.message
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("reference", ["sk-123456", "env:", "env:NOT_SET_ANYWHERE", "file:/nowhere/at/all"])
def test_a_bad_key_reference_is_an_error_that_does_not_show_a_key(reference: str) -> None:
    with pytest.raises(InputError) as caught:
        read_secret(reference)
    assert "sk-123456" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b'{"choices": null}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many"}}',
        b"\xff\xfe",
    ],
)
def test_bodies_that_are_no_completion_are_garbled(raw: bytes) -> None:
    outcome = parse_reply(raw)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "garbled"


def test_missing_content_is_empty_and_not_the_reasoning() -> None:
    message = {"content": None, "reasoning_content": "[ANSWER] hm [/ANSWER]"}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode()
    reply = parse_reply(body)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason) == ("", "length")
    assert reply.choices[0].reasoning == "[ANSWER] hm [/ANSWER]"


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    reply = parse_reply(json.dumps({"choices": [{"message": {"content": parts}}]}).encode())
    assert isinstance(reply, Reply)
    assert reply.text == "one two"


@pytest.mark.parametrize("n", ["yes", "ignored", "refused"])
def test_n_choices_cost_at_most_n_calls_more(n: str) -> None:
    """A server that gives n has one call a request; the others one call a choice and one to find out."""

    def numbered(body: dict) -> str:
        return f"{body['messages'][0]['content']} {body.get('choice', 0)} {body.get('seed')}"

    with serve(numbered, features=Features(n=n)) as teacher:

        async def run() -> list[Reply]:
            client = OpenAIModel(Endpoint(url=teacher.url), backoff=0.02)
            replies = [await client.complete(request(text, n=3, seed=5)) for text in "abc"]
            await client.close()
            return replies

        replies = asyncio.run(run())
    assert [len({choice.text for choice in reply.choices}) for reply in replies] == [3, 3, 3]
    assert len(teacher.calls) == {"yes": 3, "ignored": 9, "refused": 10}[n]
    assert sum(call.get("n", 1) for call in teacher.calls) <= 12  # never n x n
    assert replies[1].usage == {"prompt_tokens": 1 if n == "yes" else 3, "completion_tokens": 9}


def test_a_wrong_number_of_choices_now_and_then_is_made_good() -> None:
    with serve(echo, faults=Faults(share=0.1, kinds=("wrong-n",), seed=3)) as teacher:
        replies = ask(teacher, *(request(str(number), n=3, seed=number) for number in range(60)))
    assert teacher.faulty
    assert [len(reply.choices) for reply in replies] == [3] * 60
    assert len(teacher.calls) <= 60 + 2 * len(teacher.faulty)


def test_a_choice_too_many_is_left_out() -> None:
    with serve(echo, faults=Faults(plan={0: "wrong-n"})) as teacher:
        [reply] = ask(teacher, request("a"))
    assert [choice.text for choice in reply.choices] == ["text of a"]


def test_one_refused_request_for_several_choices_does_not_blame_n() -> None:
    with serve(echo, faults=Faults(plan={0: "400", 1: "400"})) as teacher:

        async def run() -> Reply:
            client = OpenAIModel(Endpoint(url=teacher.url, in_flight=1))
            with pytest.raises(Refused):
                await client.complete(request("too long", n=3))
            reply = await client.complete(request("short", n=3))
            await client.close()
            return reply

        assert len(asyncio.run(run()).choices) == 3
    assert teacher.calls[-1]["n"] == 3


def test_logprobs_are_kept_alike_in_both_forms() -> None:
    plain = Request("teacher", (), Sampling(top_logprobs=2), prompt="say a b")
    with serve(lambda body: "a b") as teacher:
        chat, text = ask(teacher, request("say a b", top_logprobs=2), plain)
    expected = tuple({"token": token, "logprob": -0.1, "top": {token: -0.1, "other": -2.3}} for token in ("a", "b"))
    assert chat.choices[0].logprobs == text.choices[0].logprobs == expected
    assert [call.get("logprobs") for call in teacher.calls] == [True, 2]
    assert parse_reply(b'{"choices": [{"text": "a"}]}').choices[0].logprobs is None


def test_a_form_is_asked_for() -> None:
    schema = json_schema("lamp", {"type": "object", "properties": {"lens": {"type": "string"}}})
    with serve(echo) as teacher:
        replies = ask(teacher, request("a", response_format=JSON_OBJECT), request("b", response_format=schema))
    assert [json.loads(reply.text)["text"] for reply in replies] == ["text of a", "text of b"]
    assert teacher.calls[1]["response_format"]["json_schema"]["schema"]["properties"] == {"lens": {"type": "string"}}


def test_reasoning_is_kept_apart() -> None:
    with serve(echo, features=Features(reasoning="let me think")) as teacher:
        [reply] = ask(teacher, request("a"))
    assert (reply.text, reply.choices[0].reasoning) == ("text of a", "let me think")


@pytest.mark.parametrize("api", ["auto", "completions"])
def test_a_server_without_chat_gets_plain_prompts(api: str) -> None:
    talk = (Message(role="system", content="Be kind."), Message(role="user", content="Hello"))
    more = (*talk, Message(role="assistant", content="Hi"), Message(role="user", content="Bye"))
    with serve(lambda body: body["prompt"], features=Features(chat=False)) as teacher:
        replies = ask(teacher, Request("teacher", talk), Request("teacher", more), endpoint={"api": api})
    assert [reply.text for reply in replies] == [
        "Be kind.\n\nHello",
        "Be kind.\n\nUser: Hello\n\nAssistant: Hi\n\nUser: Bye\n\nAssistant:",
    ]
    assert len(teacher.calls) == (4 if api == "auto" else 2)


@pytest.mark.parametrize("api", ["auto", "chat"])
def test_a_server_with_chat_alone_gets_a_prompt_as_a_message(api: str) -> None:
    with serve(echo, features=Features(completions=False)) as teacher:
        [reply] = ask(teacher, Request("teacher", (), prompt="Once upon"), endpoint={"api": api})
    assert reply.text == "text of Once upon"


def test_a_server_with_neither_is_told_with_its_own_words() -> None:
    with (
        serve(echo, features=Features(chat=False, completions=False)) as teacher,
        pytest.raises(ServiceError) as caught,
    ):
        ask(teacher, request("a"))
    assert caught.value.message == "HTTP 404: Not Found"
    assert f"ilab endpoint check {teacher.url}" in caught.value.hint


def test_what_is_hashed_is_what_is_sent() -> None:
    """Keys stay what they were: a memo filled by an earlier version is still good."""
    asked = request("größer 東京 \ud800", temperature=0.5, max_tokens=7, top_p=0.9, seed=3, stop=("x",), n=2)
    assert asked.key() == fingerprint("chat", asked.fields())
    assert json.loads(asked.text()) == asked.fields()
    assert request("a").key() == "150e68c4c5962f3f5e1f5b61e4db464e"
    with pytest.raises(ValueError):
        request("a", temperature=float("nan")).key()


def test_the_budget_bounds_the_requests_in_flight() -> None:
    with serve(echo, latency=0.02) as teacher:
        ask(teacher, *(request(str(n)) for n in range(60)), in_flight=7)
    assert teacher.peak == 7


def test_the_client_can_be_used_on_another_loop_after_closing() -> None:
    with serve(echo) as teacher:
        client = OpenAIModel(Endpoint(url=teacher.url))

        async def once(text: str) -> str:
            reply = await client.complete(request(text))
            await client.close()
            return reply.text

        assert [asyncio.run(once("a")), asyncio.run(once("b"))] == ["text of a", "text of b"]
