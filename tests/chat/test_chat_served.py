"""A chat with a server over real sockets: the project's own, a scripted one, and ones that fail."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ilab.chat.fitting import TooLarge
from ilab.chat.served import ServedTalker
from ilab.chat.session import ChatSession, Settings
from ilab.chat.talkers import LocalTalker
from ilab.config import Endpoint
from ilab.data import Message
from ilab.errors import InputError, ServiceError
from ilab.models.local import LocalModel, Sampling
from ilab.serving.server import Server
from ilab.testing.loopback import serving
from ilab.testing.teacher import Faults, Features, serve


def echo(body: dict[str, Any]) -> str:
    return f"you said {body['messages'][-1]['content']}"


def ask(session: ChatSession, *questions: str) -> list[str]:
    return ["".join(session.ask(question)) for question in questions]


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def test_server_and_process_give_the_same_conversation(local: LocalModel) -> None:
    questions = ("How many locks?", "Größe 東京?")
    near = ChatSession(LocalTalker(local, Sampling(max_tokens=12), "tiny"), Settings(memory=9))
    with serving(Server(local, "tiny").application()) as address:
        talker = ServedTalker(Endpoint(url=f"{address}/v1/"), max_tokens=12)
        assert (talker.name, talker.window, talker.served) == ("tiny", 256, ["tiny"])
        assert talker.told()["owned_by"] == "ilab"
        far = ChatSession(talker, Settings(memory=9))
        assert ask(near, *questions) == ask(far, *questions)
    assert near.messages == far.messages
    assert [message.role for message in near.messages] == ["user", "assistant"] * 2


def test_what_is_sent_and_what_a_server_does_not_take() -> None:
    with serve(echo, features=Features(limit="max_completion_tokens"), models=("one", "two"), key="hidden") as server:
        for key in ("", "n0pe"):
            with pytest.raises(ServiceError, match="answered 401") as caught:
                connect(server.url, key)
            assert "--api-key" in caught.value.hint and "n0pe" not in str(caught.value)
        talker = connect(server.url, "hidden", temperature=0.5, max_tokens=7)
        session = ChatSession(talker, Settings(system="Be brief."))
        assert ask(session, "a b", "c") == ["you said a b", "you said c"]
        asked = server.calls[-1]
        assert asked["max_completion_tokens"] == 7 and asked["temperature"] == 0.5 and "max_tokens" not in asked
        assert len(server.calls) == 3  # one was refused, and nothing is refused twice
        assert [message["content"] for message in asked["messages"]] == ["Be brief.", "a b", "you said a b", "c"]
        assert asked["model"] == "one"
        talker.use("two")
        ask(session, "d")
        assert server.calls[-1]["model"] == "two"
        with pytest.raises(InputError, match="does not serve a model named 'too'") as refused:
            talker.use("too")
        assert "did you mean 'two'" in refused.value.hint and talker.name == "two"
        assert "hidden" not in repr(vars(session)) and "hidden" not in str(caught.value)


def connect(url: str, key: str = "", **how: Any) -> ServedTalker:
    os.environ["CHAT_TEST_KEY"] = key
    try:
        return ServedTalker(Endpoint(url=url, api_key="env:CHAT_TEST_KEY" if key else ""), **how)
    finally:
        del os.environ["CHAT_TEST_KEY"]


def test_prompts_are_counted_by_the_server_where_it_can() -> None:
    with serve(echo, features=Features(context_length=2000, tokenize=True, strict=True)) as server:
        session = ChatSession(ServedTalker(Endpoint(url=server.url), max_tokens=20), Settings(system="be brief"))
        ask(session, *("word " * 450 for _ in range(4)))
        assert all("maximum context" not in message.content for message in session.messages)
        assert len(server.calls) == 4  # nothing was sent in vain
        assert server.counted and server.calls[-1]["messages"][0]["content"] == "be brief"
        assert len(session.take_notes()) == 1
        with pytest.raises(TooLarge, match="Message too large for context size") as caught:
            ask(session, "word " * 2100)
        assert "it has 2,102 tokens, and 1,980 fit" in caught.value.hint
        assert len(server.calls) == 4


def test_an_estimate_learns_from_what_the_server_counts() -> None:
    with serve(echo, features=Features(context_length=3000, strict=True)) as server:
        talker = ServedTalker(Endpoint(url=server.url))
        session = ChatSession(talker)
        text = "antidisestablishmentarianism " * 200  # 29 bytes a token, as the server counts
        assert talker.count(user(text * 3)) == round(len(text) * 3 / 4) + 2
        ask(session, text)
        assert talker.count(user(text * 3)) == round(len(text) * 3 / 8) + 2  # but never more than 8 bytes
        assert len(server.calls) == 1


def test_the_servers_own_words_count_where_the_estimate_was_wrong() -> None:
    with serve(echo, features=Features(context_length=400, strict=True)) as server:
        talker = ServedTalker(Endpoint(url=server.url, context=100_000), max_tokens=300)
        session = ChatSession(talker)
        ask(session, "w " * 50)  # with 300 for the answer it fits
        ask(session, "w " * 180)  # only with a shorter answer
        assert [(len(call["messages"]), call["max_tokens"]) for call in server.calls] == [(1, 300), (3, 300), (3, 118)]
        assert session.take_notes() == []
        ask(session, "w " * 300)  # only on its own
        assert [len(call["messages"]) for call in server.calls[3:]] == [5, 3, 1, 1]
        assert server.calls[-1]["max_tokens"] == 100
        assert len(session.take_notes()) == 1
        with pytest.raises(TooLarge):
            ask(session, "w " * 500)


@pytest.mark.parametrize(
    ("fault", "words", "retryable"),
    [
        ("500", "answered 500: injected", True),
        ("429", "answered 429: injected", True),
        ("reset", "cannot be reached", True),
        ("malformed", "no chat completion", False),
    ],
)
def test_faults_are_errors_and_the_conversation_stays(fault: Any, words: str, retryable: bool) -> None:
    with serve(echo, faults=Faults(plan={1: fault})) as server:
        session = ChatSession(ServedTalker(Endpoint(url=server.url)))
        ask(session, "one")
        with pytest.raises(ServiceError, match=words) as caught:
            ask(session, "two")
        assert (caught.value.retryable, caught.value.where) == (retryable, server.url)
        assert ask(session, "three") == ["you said three"]
        assert [message.content for message in session.messages if message.role == "user"] == ["one", "three"]


def test_leaving_an_answer_ends_it_at_the_server() -> None:
    with serve(lambda body: "word " * 4000, features=Features(pause=0.002)) as server:
        session = ChatSession(ServedTalker(Endpoint(url=server.url)))
        pieces = session.ask("a long story")
        first = [next(pieces), next(pieces)]
        pieces.close()
        assert [message.content for message in session.messages] == ["a long story", "".join(first)]
        assert ask(session, "x")[0].startswith("word")  # the connection of the first did not disturb


Answering = Callable[..., str]


@pytest.fixture
def scripted() -> Iterator[Answering]:
    """A server that says one thing; gives its URL."""
    servers = []

    def start(status: int, text: str, headers: dict[str, str] | None = None, seen: Any = None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if seen is not None:
                    seen.append(self.headers)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, *args: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def event(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


def said(url: str, key: str = "") -> list[str]:
    return list(ChatSession(connect(url, key, model="m")).ask("x"))


def test_events_and_whole_answers(scripted: Answering) -> None:
    seen: list[Any] = []
    url = scripted(200, ": comment\n\n" + event("14 ") + event("locks") + "data: [DONE]\n\n", seen=seen)
    assert said(url, "hidden") == ["14 ", "locks"]
    assert seen[0]["Authorization"] == "Bearer hidden"
    whole = json.dumps({"choices": [{"message": {"role": "assistant", "content": "14 locks"}}]}, indent=1)
    assert said(scripted(200, whole)) == ["14 locks"]


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [
        (200, event("half an ans"), "broke off"),
        (200, "data: {\n\n", "no chat completion"),
        (200, "data: [1]\n\n", "no chat completion"),
        (200, 'data: {"choices": 3}\n\n', "no chat completion"),
        (200, 'data: {"error": {"message": "it diverged"}}\n\n', "it diverged"),
        (500, "<html>oops</html>", "answered 500: <html>oops"),
        (400, '{"error": {"message": "no \\u001b[2J such"}}', r"answered 400: no \[2J such"),
    ],
)
def test_servers_that_fail(scripted: Answering, status: int, text: str, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        said(scripted(status, text))


def test_the_key_does_not_follow_a_redirect(scripted: Answering) -> None:
    seen: list[Any] = []
    elsewhere = scripted(200, "", seen=seen)
    with pytest.raises(ServiceError, match="answered 302"):
        said(scripted(302, "", {"Location": f"{elsewhere}/chat/completions"}), "hidden")
    assert seen == []


def test_addresses_that_cannot_be_reached() -> None:
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        ServedTalker(Endpoint(url="http://127.0.0.1:9/v1"), "m")
    assert "ilab model serve" in caught.value.hint
    for url in ("file:///etc/passwd", "127.0.0.1:8000", ""):
        with pytest.raises(InputError, match="no URL of a server"):
            ServedTalker(Endpoint(url=url), "m")
