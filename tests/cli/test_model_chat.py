"""``ilab model chat``: as scripts use it, and as a person does at a terminal (a pseudo-terminal, and what it shows)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ilab
from ilab.cli import chat_partner
from ilab.cli.app import main
from ilab.config import data_home
from ilab.errors import InputError, ServiceError
from ilab.testing.teacher import Faults, Features, Teacher, serve
from ilab.transfer.shelf import models_home

NOWHERE = "http://127.0.0.1:9/v1"


def echo(body: dict[str, Any]) -> str:
    return f"you said {body['messages'][-1]['content']}"


@pytest.fixture(autouse=True)
def _nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_partner, "_server", lambda _: {"url": NOWHERE})


@pytest.fixture
def server() -> Iterator[Teacher]:
    with serve(echo, models=("foo.gguf", "second")) as teacher:
        yield teacher


def chat(*words: str, stdin: str | None = None, config: Path | None = None) -> Result:
    """The command in this process, outside of any project."""
    given = ["--config", str(config)] if config else []
    return CliRunner().invoke(main, [*given, "model", "chat", *words], input=stdin, standalone_mode=False)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of settings, and a folder that is no project."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "settings.yaml"
    path.write_text("chat:\n  contexts: {pirate: Talk like a pirate.}\n")
    return path


def test_a_quick_question(server: Teacher) -> None:
    done = chat("-qq", "--endpoint-url", server.url, "--max-tokens", "9", "-t", "0.3", "How", "many?")
    assert (done.exception, done.stdout) == (None, "you said How many?\n")
    asked = server.calls[0]
    assert (asked["max_tokens"], asked["temperature"], asked["model"]) == (9, 0.3, "foo.gguf")
    assert chat("-qq", "--endpoint-url", server.url, stdin="from a pipe\n").stdout == "you said from a pipe\n"
    told = CliRunner().invoke(main, ["--json", "model", "chat", "-qq", "--endpoint-url", server.url, "x"])
    answer = {"answer": "you said x", "citations": [], "model": "foo.gguf", "notes": [], "question": "x"}
    assert json.loads(told.stdout) == answer
    logs = [path.read_text().splitlines() for path in (data_home() / "chatlogs").glob("chat_*.log")]
    assert ["How many?", "you said How many?"] in [[json.loads(line)["content"] for line in lines] for lines in logs]


def test_the_server_of_this_machine_is_asked_first(
    server: Teacher, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setattr(chat_partner, "_server", lambda _: {"url": server.url})
    done = chat("-qq", "x")
    assert f"Trying to connect to model server at {server.url}" in done.stderr
    assert f"connected to {server.url}, which serves foo.gguf, second" in done.stderr
    other = chat("-qq", "-m", "bar", "x")
    told = "Requested model bar is not served by the server. Proceeding to chat with served model: foo.gguf"
    assert told in other.stderr and other.stdout == "you said x\n"
    assert chat("-qq", "-m", "models/second", "x").exception is None and server.calls[-1]["model"] == "second"
    calls = len(server.calls)
    here = chat("-qq", "-m", str(tiny_model), "--max-tokens", "3", "x")  # a model by its path is loaded
    assert here.exception is None and len(server.calls) == calls
    assert "tiny answers in this process" in here.stderr


def test_without_a_model_it_is_said_how_to_get_one(settings: Path) -> None:
    done = chat("-qq", "x", config=settings)
    assert isinstance(done.exception, InputError) and "ilab run" in done.exception.hint
    assert isinstance(chat("-m", "nobody/nothing", "-qq", "x").exception, InputError)


def test_a_script_in_a_pipe(server: Teacher, settings: Path, tmp_path: Path) -> None:
    file = tmp_path / "my chat.json"
    lines = ["one", "", "/m", "two", "lines", "", f"/s {file}", "/d 2", "/c pirate", "ahoy", "/q", "never"]
    done = chat("--endpoint-url", server.url, stdin="\n".join(lines), config=settings)
    assert done.exception is None
    assert done.stdout.splitlines() == ["you said one", "you said two", "lines", "you said one", "you said ahoy"]
    assert f"Saved 4 messages in {file}" in done.stderr
    assert [message["role"] for message in json.loads(file.read_text())] == ["user", "assistant"] * 2
    assert server.calls[-1]["messages"][0] == {"role": "system", "content": "Talk like a pirate."}
    again = chat("--endpoint-url", server.url, "-s", str(file), stdin="three\n/n\nfour")
    assert [len(call["messages"]) for call in server.calls[-2:]] == [5, 5]
    assert again.stdout == "you said three\nyou said four\n"


def test_a_mistake_ends_a_script(server: Teacher) -> None:
    done = chat("--endpoint-url", server.url, stdin="one\n/x\ntwo\n")
    assert done.stdout == "you said one\n"
    assert isinstance(done.exception, InputError) and "no command /x" in str(done.exception)
    with serve(echo, faults=Faults(plan={0: "429"})) as busy:
        failed = chat("--endpoint-url", busy.url, "-qq", "x").exception
        assert isinstance(failed, ServiceError) and "wait a little" in failed.hint


def test_a_message_too_large(tmp_path: Path) -> None:
    with serve(echo, features=Features(context_length=25, tokenize=True)) as small:
        assert chat("--endpoint-url", small.url, "-qq", "Hello").exception is None
        failed = chat("--endpoint-url", small.url, "-qq", "word " * 30).exception
        assert isinstance(failed, InputError) and failed.message == "Message too large for context size."
        assert "it has 30 tokens, and 19 fit" in failed.hint and len(small.calls) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "abc"), "'abc' is not a valid float"),
        (("-t", "2.1"), "2.1 is not in the range 0<=x<=2"),
        (("--max-tokens", "0"), "0 is not in the range x>=1"),
        (("-t", "1", "-gm"), "give one of the two"),
        (("-qq",), "-qq needs a question"),
    ],
)
def test_usage(words: tuple[str, ...], said: str) -> None:
    done = chat(*words, stdin="")
    assert said in str(getattr(done.exception, "message", done.exception))


def test_other_mistakes_name_what_to_type(server: Teacher, settings: Path, tmp_path: Path) -> None:
    at = ("--endpoint-url", server.url, "-qq", "x")
    key = chat(*at, "--api-key", "sk-12345", config=settings).exception
    assert isinstance(key, InputError) and "env:NAME" in key.message and "12345" not in str(key)
    assert chat(*at, "--api-key", "no_api_key", config=settings).exception is None
    context = chat(*at, "-c", "pirat", config=settings).exception
    assert isinstance(context, InputError) and "did you mean 'pirate'" in context.hint
    certificate = chat(
        "--endpoint-url", "https://127.0.0.1:9/v1", "--tls-client-cert", str(settings), "-qq", "x"
    ).exception
    assert certificate is not None and "--tls-client-cert" in str(certificate)
    taken = chat(*at, "--model-family", "granite", config=settings)
    assert taken.exception is None and "note: --model-family is not needed" in taken.stderr
    settings.write_text(f"chat: {{temperature: 1.5, endpoint: {{url: '{server.url}', model: second}}}}\n")
    assert chat("-qq", "x", config=settings).exception is None
    assert (server.calls[-1]["temperature"], server.calls[-1]["model"]) == (1.5, "second")
    assert chat("-qq", "x", "-gm", config=settings).exception is None and server.calls[-1]["temperature"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-c", "pirat"), "there is no context 'pirat'"),
        (("-s", "gone.json"), "this file cannot be read"),
        (("-s", "settings.yaml"), "this is no saved conversation"),
        (("--rag", "--document-store-uri", "nowhere/x.sqlite"), "nowhere/x.sqlite"),
    ],
)
def test_what_was_typed_is_checked_before_a_model_is_looked_for(
    server: Teacher, settings: Path, words: tuple[str, ...], said: str
) -> None:
    done = chat("--endpoint-url", server.url, "-qq", "x", *words, config=settings)
    assert isinstance(done.exception, InputError) and said in str(done.exception)
    assert "connected" not in done.stderr and not server.calls


def test_what_a_model_says_cannot_steer_the_terminal() -> None:
    evil = "safe\x1b[2J\x1b]0;title\x07 \x9b31m\u202etxet"
    with serve(lambda body: evil) as server:
        shown = chat("--endpoint-url", server.url, "-qq", "x").stdout
    assert "\x1b" not in shown and "\x9b" not in shown and "\u202e" not in shown and shown.startswith("safe\ufffd[2J")


def test_another_model_of_this_machine(tiny_model: Path, settings: Path) -> None:
    for name in ("lab/lamp", "lab/lump"):
        shutil.copytree(tiny_model, models_home() / name)
    settings.write_text(
        "models: {named: {bright: {path: lab/lamp, system_prompt: Be bright.}}}\nchat: {max_tokens: 3, memory: 2}\n"
    )
    lines = "/lc\nHow many?\n/a lab/lump\nAnd now?\n/about\n/a lab/lemp\n"
    done = chat("--model-id", "bright", "-t", "0.5", stdin=lines, config=settings)
    assert "default\n  Be bright." in done.stderr
    assert "You talk to lump now." in done.stderr and f"path     {models_home() / 'lab/lump'}" in done.stderr
    assert isinstance(done.exception, InputError) and "there is no model 'lab/lemp'" in done.exception.message
    assert isinstance(chat("--model-id", "dark", "-qq", "x", config=settings).exception, InputError)


# -- at a terminal --------------------------------------------------------------------------------------------------

PROGRAM = (
    "import fcntl, termios, sys; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "from ilab.cli.app import run; sys.argv = ['ilab', *sys.argv[1:]]; run()"
)
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][AB0]|[=>])")


class Terminal:
    """A child on a pseudo-terminal of 100 columns and 30 lines."""

    def __init__(self, *words: str, folder: Path) -> None:
        self._screen, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        source = str(Path(ilab.__file__).parents[1])
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
        more = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdin=child, stdout=child, stderr=child, cwd=folder, env={**os.environ, **more}, start_new_session=True,
        )  # fmt: skip
        os.close(child)
        self.raw = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def text(self) -> str:
        return ESCAPE.sub("", self.raw)

    def until(self, words: str, seconds: float = 60.0) -> str:
        """What has come since the last time, once ``words`` are in it."""
        end = time.monotonic() + seconds
        while words not in self.text[self._seen :]:
            if time.monotonic() > end or not self._read(0.2):
                raise AssertionError(f"{words!r} did not come; there is {self.text[self._seen :]!r}")
        new = self.text[self._seen :]
        self._seen += new.index(words) + len(words)
        return new

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def end(self) -> int:
        """The exit code, once all is read."""
        while self._read(0.2):
            pass
        os.close(self._screen)
        return self.process.wait(30)

    def _read(self, pause: float) -> bool:
        if select.select([self._screen], [], [], pause)[0]:
            try:
                self.raw += os.read(self._screen, 1 << 16).decode("utf-8", "replace")
            except OSError:  # the child has closed the terminal
                return False
        return True


def test_a_conversation_at_a_terminal(tmp_path: Path) -> None:
    def script(body: dict[str, Any]) -> str:
        asked = str(body["messages"][-1]["content"])
        if "story" in asked:
            return "word " * 3000
        return "The **tower** is <b>34</b> metres.\n\n- one\n- two \x1b[2J" if "tall" in asked else f"you said {asked}"

    file = tmp_path / "the chat.json"
    with serve(script, models=("models/foo.gguf",), features=Features(pause=0.005)) as server:
        with Terminal("model", "chat", "--endpoint-url", server.url, folder=tmp_path) as screen:
            assert "ilab chat with FOO.GGUF" in screen.until(">>> ")
            screen.type("How tall?\r")
            screen.until("• two")
            assert "\x1b[2J" not in screen.raw[screen.raw.index("tower") :]
            shown = screen.until(">>> ")
            assert (
                "╭─ models/foo.gguf ─" in screen.text
                and "The tower is <b>34</b> metres." in screen.text
                and "╯" in shown
            )
            screen.type("/about\r")
            screen.until(server.url)
            screen.until(">>> ")
            screen.type("tell a story\r")
            screen.until("word word")
            screen.type("\x03")
            screen.until("stopped")
            screen.until(">>> ")
            assert server.calls[-1]["messages"][-1]["content"] == "tell a story"
            screen.type("/m\r")
            screen.until(">>> ")
            screen.type("first\rsecond\x1b\r")
            screen.until("second")
            screen.until("╯")
            assert server.calls[-1]["messages"][-1]["content"] == "first\nsecond"
            kept = server.calls[-1]["messages"][-2]["content"]
            assert kept.startswith("word word") and len(kept) < 15000  # as far as it came
            screen.until(">>> ")
            screen.type("/nn\r")
            screen.until("there is no command /nn")
            screen.until(">>> ")
            screen.type("/s the ch\x03")  # empties the line
            screen.type(f"/s {file}\r")
            screen.until("Saved 6 messages")
            screen.until(">>> ")
            screen.type("\x03")
            assert screen.end() == 0
        with Terminal("model", "chat", "--endpoint-url", server.url, "-s", str(file), folder=tmp_path) as again:
            assert "How tall?" in again.until(">>> ")
            again.type("/l the\t")
            again.until("chat.json")  # completed
            again.type("\r")
            again.until("Loaded 6 messages")
            again.until(">>> ")
            again.type("\x1b[A\x1b[A\r")  # two lines up in the history
            again.until("Saved 6 messages")
            again.until(">>> ")
            again.type("\x04")
            assert again.end() == 0
    history = (data_home() / "chat_history").read_text()
    assert "+How tall?" in history and "+first\n+second" in history


def test_the_prompt_is_kept_whatever_the_server_does(tmp_path: Path) -> None:
    with (
        serve(echo, faults=Faults(plan={0: "429", 1: "reset"})) as server,
        Terminal("model", "chat", "-nd", "--endpoint-url", server.url, folder=tmp_path) as screen,
    ):
        screen.until(">>> ")
        for words in ("answered 429", "cannot be reached"):
            screen.type("x\r")
            screen.until(words)
            screen.until(">>> ")
        screen.type("again\r")
        screen.until("you said again")
        assert "╭" not in screen.text
        screen.until(">>> ")
        screen.type("quit\r")
        assert screen.end() == 0
