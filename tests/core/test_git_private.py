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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ilab.core.git import Origin, checkout
from ilab.errors import IlabError, InputError

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
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
    assert checkout(Origin(server, "refs/pull/7/head"), tmp_path / "cache").commit != found.commit


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
