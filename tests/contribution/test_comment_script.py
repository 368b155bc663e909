"""The script that posts the review, as the workflows of a taxonomy call it, against a server on loopback."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(str(resources.files("ilab.taxonomy") / "template" / "tools" / "comment.py"))
MARK = "<!-- ilab review -->"


@dataclass
class Forge:
    """What a forge's API was asked, and the comments it holds."""

    url: str = ""
    notes: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, token
    head: str = "abc"


@pytest.fixture
def forge() -> Iterator[Forge]:
    state = Forge()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _do(self) -> None:
            token = self.headers.get("PRIVATE-TOKEN") or self.headers.get("Authorization") or ""
            state.asked.append((self.command, self.path, token))
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if "/pulls/" in self.path:
                self._answer({"head": {"sha": state.head}, "state": "open"})
            elif self.command == "GET":
                self._answer(state.notes)
            elif self.command == "POST":
                state.notes.append({"id": len(state.notes) + 1, "user": {"type": "Bot"}, **body})
                self._answer(state.notes[-1])
            else:
                state.notes[int(self.path.rsplit("/", 1)[1]) - 1].update(body)
                self._answer({})

        do_GET = do_POST = do_PUT = do_PATCH = _do

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def post(forge: Forge, kind: str, file: Path, number: str = "7", **more: str) -> subprocess.CompletedProcess[str]:
    of_github = {"GITHUB_API_URL": forge.url, "GITHUB_REPOSITORY": "o/r", "HEAD_SHA": "abc"}
    of_gitlab = {"CI_API_V4_URL": forge.url, "CI_MERGE_REQUEST_PROJECT_ID": "12"}
    environment = {"PATH": os.environ["PATH"], "API_TOKEN": "secret", **(of_github if kind == "github" else of_gitlab)}
    return subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(file), number],
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_one_comment_is_written_and_then_brought_up_to_date(forge: Forge, kind: str, tmp_path: Path) -> None:
    forge.notes.append({"id": 1, "user": {"type": "User"}, "body": "I like it"})
    comment = tmp_path / "comment.md"
    for text in ("first", "second"):
        comment.write_text(f"{MARK}\n{text}\n")
        done = post(forge, kind, comment)
        assert done.returncode == 0, done.stderr
        assert "secret" not in done.stdout + done.stderr
    assert [note["body"] for note in forge.notes] == ["I like it", f"{MARK}\nsecond\n"]
    assert {token for _, _, token in forge.asked} == {"Bearer secret" if kind == "github" else "secret"}


def test_on_github_only_the_request_that_was_reviewed_is_commented(forge: Forge, tmp_path: Path) -> None:
    comment = tmp_path / "comment.md"
    comment.write_text(f"{MARK}\nhello\n")
    forge.head = "another commit"
    assert post(forge, "github", comment).returncode == 1
    assert not forge.notes


@pytest.mark.parametrize(("text", "number"), [("no mark\n", "7"), (f"{MARK}\n", "7/../8"), (f"{MARK}\n", "")])
def test_what_is_no_review_is_not_posted(forge: Forge, tmp_path: Path, text: str, number: str) -> None:
    comment = tmp_path / "comment.md"
    comment.write_text(text)
    assert post(forge, "github", comment, number).returncode == 1
    assert not forge.asked


def test_without_a_token_nothing_is_sent(forge: Forge, tmp_path: Path) -> None:
    comment = tmp_path / "comment.md"
    comment.write_text(f"{MARK}\n")
    done = post(forge, "gitlab", comment, API_TOKEN="")
    assert done.returncode == 0
    assert "comment.md" in done.stdout
    assert not forge.asked
