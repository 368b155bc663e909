"""A private repository is read with what the environment holds, and only with that."""

from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ilab.core.git import Origin, checkout
from ilab.errors import IlabError, InputError

SECRET = "pass word'\"$(x)"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    (work / "README").write_text("a leaf\n")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for line in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        (*author, "commit", "-qm", "one"),
        ("update-ref", "refs/pull/7/head", "HEAD"),
    ):
        subprocess.run(["git", "-C", str(work), *line], check=True)
    bare = tmp_path / "served" / "taxonomy.git"
    subprocess.run(["git", "clone", "-q", "--mirror", str(work), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    return bare


@pytest.fixture
def server(repository: Path) -> Iterator[str]:
    """Plain files behind a name and a password, as git's own dumb protocol reads them."""
    wanted = "Basic " + base64.b64encode(f"anna:{SECRET}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path = repository.parent / self.path.split("?")[0].lstrip("/")
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            if path.is_file():
                self.wfile.write(path.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/taxonomy.git"
    httpd.shutdown()
    httpd.server_close()


def test_a_name_and_a_password_of_the_environment(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IlabError):
        checkout(Origin(server, "main"), tmp_path / "cache")
    monkeypatch.setenv("GIT_USERNAME", "anna")
    monkeypatch.setenv("GIT_PASSWORD", "wrong")
    with pytest.raises(InputError) as caught:
        checkout(Origin(server, "main"), tmp_path / "cache")
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("GIT_PASSWORD", SECRET)
    found = checkout(Origin(server, "main"), tmp_path / "cache")
    assert (found.folder / "README").read_text() == "a leaf\n"
    assert checkout(Origin(server, "refs/pull/7/head"), tmp_path / "cache").commit == found.commit
