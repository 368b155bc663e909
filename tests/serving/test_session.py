from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ilab.data import Message
from ilab.errors import InputError, ServiceError
from ilab.models.local import LocalModel, Sampling
from ilab.serving.session import ChatSession, EndpointTalker, LocalTalker, read_session

SAMPLING = {"temperature": 0, "max_tokens": 12}


class Echo:
    """Says what it was asked, word by word, and keeps the conversations it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.given: list[list[Message]] = []

    def stream(self, messages: list[Message]) -> Iterator[str]:
        self.given.append(messages)
        yield "you said "
        if self.error:
            raise self.error
        yield messages[-1].content


def said(session: ChatSession) -> list[str]:
    return [message.content for message in session.messages]


def test_endpoint_and_process_give_the_same_conversation(base_url: str, local: LocalModel) -> None:
    near = ChatSession(LocalTalker(local, Sampling(max_tokens=12)))
    far = ChatSession(EndpointTalker(base_url, options=SAMPLING))
    for question in ("How many locks?", "Größe 東京?"):
        pieces = list(near.ask(question))
        assert "".join(pieces) == "".join(far.ask(question))
        assert pieces
    assert near.messages == far.messages
    assert [message.role for message in near.messages] == ["user", "assistant"] * 2


def test_the_conversation_is_kept_and_forgotten() -> None:
    talker = Echo()
    session = ChatSession(talker, system="Be brief.")
    list(session.ask("one"))
    list(session.ask("two"))
    assert [message.content for message in talker.given[1]] == ["Be brief.", "one", "you said one", "two"]
    outcome = session.command("/n")
    assert outcome is not None
    assert outcome.kind == "shown"
    assert said(session) == ["Be brief."]


@pytest.mark.parametrize(
    ("memory", "sent"),
    [(0, ["S", "three"]), (1, ["S", "two", "you said two", "three"]), (9, None), (None, None)],
)
def test_memory(memory: int | None, sent: list[str] | None) -> None:
    talker = Echo()
    session = ChatSession(talker, system="S", memory=memory)
    for question in ("one", "two", "three"):
        list(session.ask(question))
    everything = ["S", "one", "you said one", "two", "you said two", "three"]
    assert [message.content for message in talker.given[2]] == (sent or everything)
    assert said(session) == [*everything, "you said three"]


def test_an_answer_that_is_broken_off_is_kept_and_one_that_failed_is_not() -> None:
    session = ChatSession(Echo())
    answer = session.ask("long story")
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert said(session) == ["long story", "you said "]
    failing = ChatSession(Echo(ServiceError("gone")))
    with pytest.raises(ServiceError):
        list(failing.ask("x"))
    assert failing.messages == ()


def test_save_and_load(tmp_path: Path) -> None:
    session = ChatSession(Echo(), system="S")
    list(session.ask("Größe?"))
    file = tmp_path / "my chat.json"
    outcome = session.command(f"/s {file}")
    assert outcome is not None
    assert "3 messages" in outcome.text
    assert json.loads(file.read_text()) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Größe?"},
        {"role": "assistant", "content": "you said Größe?"},
    ]
    other = ChatSession(Echo())
    other.command(f"/l {file}")
    assert other.messages == session.messages
    list(other.ask("more"))
    other.command(f"/s {file}")
    assert len(read_session(file)) == 5


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    session = ChatSession(Echo())
    list(session.ask("x"))
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    for command in (f"/s {notes}", f"/l {notes}"):
        with pytest.raises(InputError, match="no saved conversation"):
            session.command(command)
    assert notes.read_text() == "precious"
    with pytest.raises(InputError, match="cannot be read"):
        session.command(f"/l {tmp_path / 'none.json'}")
    with pytest.raises(InputError, match="cannot be written"):
        session.command(f"/s {notes}/x.json")


def test_commands() -> None:
    session = ChatSession(Echo())
    assert [session.command(line) is None for line in ("hello", "", "quit the job", "and/or")] == [True] * 4
    outcomes = [session.command(line) for line in ("/q", "quit", " exit ", "/h")]
    assert [outcome.kind for outcome in outcomes if outcome] == ["quit", "quit", "quit", "shown"]
    assert outcomes[3] is not None
    assert all(word in outcomes[3].text for word in ("/q", "/h", "/n", "/s", "/l"))
    with pytest.raises(InputError, match="no command /x"):
        session.command("/x")
    with pytest.raises(InputError, match="/s needs a file"):
        session.command("/s")


@pytest.fixture
def scripted() -> Iterator[Callable[..., EndpointTalker]]:
    """A server that answers as told, and a talker for it."""
    servers = []

    def start(status: int, text: str, headers: dict[str, str] | None = None, seen: Any = None) -> EndpointTalker:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if seen is not None:
                    seen.append(self.headers)
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST

            def log_message(self, *args: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return EndpointTalker(f"http://127.0.0.1:{server.server_port}/v1", "m", key="hidden")

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def event(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n"


def test_the_key_is_sent_and_never_shown(scripted: Callable[..., EndpointTalker]) -> None:
    seen: list[Any] = []
    talker = scripted(200, ": comment\n\n" + event("14 ") + event("locks") + "data: [DONE]\n\n", seen=seen)
    assert list(ChatSession(talker).ask("x")) == ["14 ", "locks"]
    assert seen[0]["Authorization"] == "Bearer hidden"
    assert "hidden" not in repr(talker)


@pytest.mark.parametrize(
    ("status", "text", "words", "retryable"),
    [
        (200, event("half an ans"), "broke off", True),
        (200, "data: {\n\n", "no chat completion", False),
        (200, 'data: {"error": {"message": "it diverged"}}\n\n', "it diverged", True),
        (401, '{"error": {"message": "wrong key"}}', "answered 401: wrong key", False),
        (500, "<html>oops</html>", "answered 500: <html>oops", True),
        (429, "", "answered 429: Too Many Requests", True),
    ],
)
def test_servers_that_fail(
    scripted: Callable[..., EndpointTalker], status: int, text: str, words: str, retryable: bool
) -> None:
    talker = scripted(status, text)
    with pytest.raises(ServiceError, match=words) as caught:
        list(ChatSession(talker).ask("x"))
    assert (caught.value.retryable, caught.value.where) == (retryable, talker.url)


def test_the_key_does_not_follow_a_redirect(scripted: Callable[..., EndpointTalker]) -> None:
    seen: list[Any] = []
    elsewhere = scripted(200, "", seen=seen)
    talker = scripted(302, "", {"Location": f"{elsewhere.url}/chat/completions"})
    with pytest.raises(ServiceError, match="answered 302"):
        list(ChatSession(talker).ask("x"))
    assert seen == []


def test_addresses_that_cannot_be_reached() -> None:
    with pytest.raises(ServiceError, match="cannot be reached") as caught:
        list(ChatSession(EndpointTalker("http://127.0.0.1:9/v1", "m")).ask("x"))
    assert "ilab model serve" in caught.value.hint
    for url in ("file:///etc/passwd", "127.0.0.1:8000", ""):
        with pytest.raises(InputError, match="no address of a server"):
            list(ChatSession(EndpointTalker(url, "m")).ask("x"))
