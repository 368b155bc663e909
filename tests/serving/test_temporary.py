"""A server for as long as a block runs: it is there, it is gone, and it says why it is not."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ilab
from ilab.chat.served import ServedTalker
from ilab.config_where import Endpoint, Where
from ilab.core.events import Bus, Event
from ilab.core.keeper import Child
from ilab.core.pids import born
from ilab.data import Message
from ilab.errors import SetupError
from ilab.models.local import LocalModel
from ilab.serving import readiness
from ilab.serving.readiness import last_words
from ilab.serving.temporary import answering, temporary_server

WHERE = Where(device="cpu")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(ilab.__file__).parents[1]))


def gone(pid: int) -> bool:
    """Whether the process ends within half a minute."""
    for _ in range(300):
        if born(pid) is None:
            return True
        time.sleep(0.1)
    return False


def test_a_server_while_a_block_runs(
    tiny_model: Path, local: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "SPEAK", 0.2)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    events: list[Event] = []
    log = tmp_path / "logs" / "serve.log"
    emit = Bus([events.append]).for_step("chat")
    with pytest.raises(KeyboardInterrupt), temporary_server(tiny_model, "mine", WHERE, log=log, emit=emit) as url:
        assert answering(url) == ["mine"]
        question = [Message(role="user", content="How many locks has the canal?")]
        talker = ServedTalker(Endpoint(url=url), "mine", max_tokens=8)
        ids = list(local.generate(local.renderer.prompt_ids(question), 8, stop_ids=local.renderer.stop_ids))
        assert "".join(talker.stream(question)) == local.renderer.decode(ids)
        raise KeyboardInterrupt
    assert answering(url) == []
    assert events[0].data["note"].startswith("starting the server of mine")
    assert url.removesuffix("/v1") in log.read_text()


def test_why_it_did_not_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: of another day\n")
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(SetupError, match=r"config\.json is missing") as caught,
        temporary_server(tmp_path / "model", "m", WHERE, log=log),
    ):
        pytest.fail("it cannot be ready")
    assert caught.value.where == str(log)
    assert "another day" not in caught.value.message


def test_killing_the_parent_leaves_no_child(tmp_path: Path) -> None:
    """The starter is killed with -9; its server, which does not listen to SIGINT, and the server's worker are gone."""
    code = """
import sys, time
from ilab.core.keeper import Child
server = '''
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), worker.pid, flush=True)
time.sleep(600)
'''
child = Child([sys.executable, "-c", server], open(sys.argv[1], "wb"), 0.2)
time.sleep(600)
"""
    log = tmp_path / "pids"
    with subprocess.Popen([sys.executable, "-c", code, str(log)]) as starter:
        while not (log.exists() and log.read_text().endswith("\n")):
            assert starter.poll() is None
            time.sleep(0.05)
        server, worker = map(int, log.read_text().split())
        assert born(server) and born(worker)
        starter.kill()
    assert gone(server)
    assert gone(worker)


def test_a_child_that_ends_by_itself_and_one_that_is_stopped(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        with Child([sys.executable, "-c", "import sys; sys.exit(7)"], log) as child:
            assert child.wait() == 7
        with Child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], log) as child:
            assert child.wait() == 128 + signal.SIGKILL
        with Child([sys.executable, "-c", "import time; time.sleep(600)"], log) as child:
            assert child.code is None
        assert child.code not in (None, 0)


def test_nobody_answers() -> None:
    with socket.socket() as silent:  # takes the connection and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert answering(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.2) == []
    assert answering("file:///etc/passwd") == []
    assert answering("no address") == []


def test_last_words() -> None:
    assert last_words("loading\nValueError: too long\n\n  shorten it\n") == "ValueError: too long\n  shorten it"
    assert last_words("\n".join(map(str, range(9)))) == "\n".join(map(str, range(3, 9)))
    cause = "error: unknown model architecture\nloading\nRuntimeError: no server\nbye\nerror: it ended\n"
    assert last_words(cause) == "error: unknown model architecture\nRuntimeError: no server\nerror: it ended"
    assert last_words("") == ""
