"""A private repository is read with what the environment holds, and only with that."""

from __future__ import annotations

import base64
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from ilab.config import Where
from ilab.core.git import Origin, checkout, clone, server_of
from ilab.data import DocumentRef, Leaf, Place, QuestionAnswer, SeedExample
from ilab.documents.locate import Survey, survey_documents
from ilab.errors import IlabError, InputError

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SECRET = "pass word'\"$(x)"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    (work / "README").write_text("a leaf\n")
    (work / "page.md").write_text("# Of tin\n\nTin melts at 232 degrees.\n")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for line in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        (*author, "commit", "-qm", "one"),
        ("checkout", "-q", "--detach"),
    ):
        subprocess.run(["git", "-C", str(work), *line], check=True)
    (work / "README").write_text("a better leaf\n")
    for line in (
        (*author, "commit", "-qam", "two"),
        ("update-ref", "refs/pull/7/head", "HEAD"),
        ("checkout", "-q", "main"),
    ):
        subprocess.run(["git", "-C", str(work), *line], check=True)
    bare = tmp_path / "served" / "taxonomy.git"
    subprocess.run(["git", "clone", "-q", "--mirror", str(work), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    return bare


@pytest.fixture
def server(repository: Path) -> Iterator[str]:
    """Plain files behind a name and a password, as git's own dumb protocol reads them."""
    with serving(repository.parent) as place:
        yield f"{place}/taxonomy.git"


@contextmanager
def serving(folder: Path, told: list[str] | None = None, onward: str = "") -> Iterator[str]:
    """``folder`` behind a name and a password, or ``onward``; notes in ``told`` what it is told of them."""
    wanted = "Basic " + base64.b64encode(f"anna:{SECRET}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if told is not None and "Authorization" in self.headers:
                told.append(self.headers["Authorization"])
            if onward:
                self.send_response(302)
                self.send_header("Location", onward + self.path)
                self.end_headers()
                return
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path = folder / self.path.split("?")[0].lstrip("/")
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            if path.is_file():
                self.wfile.write(path.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()


def test_a_name_and_a_password_of_the_environment(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, asked = (Origin(server, ref, login=server_of(server)) for ref in ("main", "refs/pull/7/head"))
    with pytest.raises(IlabError):
        checkout(main, tmp_path / "cache")
    monkeypatch.setenv("GIT_USERNAME", "anna")
    monkeypatch.setenv("GIT_PASSWORD", "wrong")
    with pytest.raises(InputError) as caught:
        checkout(main, tmp_path / "cache")
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("GIT_PASSWORD", SECRET)
    found = checkout(main, tmp_path / "cache")
    assert (found.folder / "README").read_text() == "a leaf\n"
    assert checkout(asked, tmp_path / "cache").commit != found.commit


def test_a_password_in_the_address_reaches_no_command_line_and_no_clone(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lines = shutil.which("git"), tmp_path / "lines"
    spy = tmp_path / "bin" / "git"
    spy.parent.mkdir()
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {lines}\nexec {real} "$@"\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    address = server.replace("//", f"//anna:{quote(SECRET, safe='')}@")
    found = checkout(Origin(address, "main"), tmp_path / "cache")
    clone(Origin(address), tmp_path / "clone")
    assert (found.folder / "README").read_text() == (tmp_path / "clone" / "README").read_text() == "a leaf\n"
    assert server in lines.read_text()
    for text in (lines.read_text(), (tmp_path / "clone" / ".git" / "config").read_text()):
        assert not any(secret in text for secret in ("anna", SECRET, quote(SECRET, safe="")))
    monkeypatch.setenv("GIT_PASSWORD", "of another server")
    assert checkout(Origin(address, "main", login=server_of(server)), tmp_path / "again").commit == found.commit
    with pytest.raises(InputError, match="no address of a git repository"):
        checkout(Origin(server.replace("//", "//anna:a%0ahost=b@"), "main"), tmp_path / "cache")


def test_the_password_of_the_environment_is_told_to_the_taxonomys_server_alone(
    server: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leaf may refer to any repository; one that asks for a password is not given that of the taxonomy."""
    monkeypatch.setenv("GIT_USERNAME", "anna")
    monkeypatch.setenv("GIT_PASSWORD", SECRET)
    told: list[str] = []
    own = server_of(server)
    with serving(repository.parent, told) as other, serving(repository.parent, onward=other) as moved:
        for address in (f"{other}/taxonomy.git", f"{moved}/taxonomy.git"):
            for login in (own, moved, ""):
                with pytest.raises(InputError):
                    checkout(Origin(address, "main", login=login), tmp_path / "cache")
        assert told == []

        def survey(address: str, where: Where, login: str = "") -> Survey:
            place = Place(file="knowledge/a/qna.yaml", line=1)
            ref = DocumentRef(repo=f"{address}/taxonomy.git", commit="main", patterns=("*.md",), place=place)
            seed = SeedExample(pairs=(QuestionAnswer(question="q", answer="a", place=place),), place=place)
            leaf = Leaf(path="knowledge/a", kind="knowledge", version=3, created_by="t", digest="d", place=place,
                        seeds=(seed,), documents=(ref,))  # fmt: skip
            return survey_documents([leaf], tmp_path, where, base=tmp_path, login=login)

        where = Where(cache=str(tmp_path / "documents"))
        assert survey(other, where, login=own).problems and told == []
        assert not survey(own, where, login=own).problems
        mirrors = {"mirrors": {"https://far.example/taxonomy.git": f"{other}/taxonomy.git"}}
        mirrored = Where.model_validate({"cache": where.cache, "documents": mirrors})
        assert not survey("https://far.example", mirrored).problems and told, "a mirror is the user's own word"


def _may_run() -> bool:
    """As root sshd gives up its rights to a user, in a folder, that Debian's package and its service make."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        return False
    return os.geteuid() != 0 or ("sshd" in [one.pw_name for one in pwd.getpwall()] and Path("/run/sshd").is_dir())


@pytest.fixture
def ssh_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """OpenSSH's own server, for the key ``mine``; what the client learns of hosts stays in the test's folder."""
    if not _may_run():
        pytest.skip("no sshd")
    for name in ("host", "mine", "other"):
        key = str(tmp_path / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "mine.pub",
        "AuthenticationMethods": "publickey",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
    }
    (tmp_path / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(
        f'#!/bin/sh\nexec {shutil.which("ssh")} -F /dev/null -oUserKnownHostsFile={tmp_path}/hosts "$@"\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with (
        (tmp_path / "sshd.log").open("wb") as log,
        subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=log) as server,
    ):
        try:
            _wait_for(server, port, tmp_path / "sshd.log")
            yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        assert server.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_a_repository_over_ssh(
    ssh_server: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real server: a branch, a pull request's ref, a commit; the key of the file alone opens it."""
    address, cache = f"{ssh_server}{repository}", tmp_path / "cache"
    monkeypatch.setenv("GIT_SSH_KEY", str(tmp_path / "other"))
    with pytest.raises(IlabError, match="Permission denied"):
        checkout(Origin(address, "main"), cache)
    monkeypatch.setenv("GIT_SSH_KEY", str(tmp_path / "mine"))
    branch = checkout(Origin(address, "main"), cache)
    assert (branch.folder / "README").read_text() == "a leaf\n"
    asked = checkout(Origin(address, "refs/pull/7/head"), cache)
    assert asked.commit != branch.commit and (asked.folder / "README").read_text() == "a better leaf\n"
    assert checkout(Origin(address, branch.commit), tmp_path / "second").commit == branch.commit
    with pytest.raises(InputError):
        checkout(Origin(address, "nowhere"), cache)
    assert (tmp_path / "hosts").read_text().startswith("[127.0.0.1]:")
