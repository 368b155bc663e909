"""Names and passwords for registries, from where docker and podman keep them. Nothing is ever written or shown.

    $REGISTRY_AUTH_FILE   $DOCKER_CONFIG/config.json   $XDG_RUNTIME_DIR/containers/auth.json   ~/.docker/config.json

Passwords may stand in the file (``auths``) or with a helper program that it names (``credHelpers``, ``credsStore``).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ilab.errors import SetupError

PATIENCE = 30.0  # seconds for a helper program
_HELPER = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)
_HUB = "https://index.docker.io/v1/"  # docker's own registry has an older name in these files


@dataclass(frozen=True)
class Login:
    """``token`` is an identity token, which a token server takes instead of a password."""

    name: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.password}".encode()).decode()


def find_login(host: str, first: Path | None = None) -> Login | None:
    """The login for a registry, or None; ``first`` is looked into first: a file, or the folder of a mounted secret.

    Raises ``SetupError`` for a file or a helper that cannot be used.
    """
    names = [host, f"https://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    names += [_HUB] if host in ("docker.io", "registry-1.docker.io") else []
    for path in (*_secret(first), *_places()):
        config = _read(path)
        helpers, auths = config.get("credHelpers"), config.get("auths")
        helper = helpers.get(host) if isinstance(helpers, dict) else None
        for name in names:
            entry = auths.get(name) if isinstance(auths, dict) else None
            if isinstance(entry, dict) and (found := _login(entry, path)):
                return found
        helper = helper or config.get("credsStore")
        if isinstance(helper, str) and helper and (found := _ask(helper, names[-1] if _HUB in names else host, path)):
            return found
    return None


def _secret(path: Path | None) -> list[Path]:
    """The files that a secret of Kubernetes (``kubernetes.io/dockerconfigjson``, or made by hand) is mounted as."""
    if path is None or not path.is_dir():
        return [path] if path else []
    return [path / name for name in (".dockerconfigjson", "config.json", "auth.json")]


def _places() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    docker = os.environ.get("DOCKER_CONFIG")
    yield Path(docker or Path.home() / ".docker") / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        message = f"the logins for registries cannot be read ({getattr(error, 'strerror', None) or 'no JSON'})"
        raise SetupError(message, where=str(path), hint="mend the file, or remove it") from error
    return config if isinstance(config, dict) else {}


def _login(entry: Mapping[str, Any], path: Path) -> Login | None:
    token = str(entry.get("identitytoken") or "")
    try:
        name, _, password = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise SetupError("a login in it cannot be read", where=str(path), hint="log in again") from error
    name, password = name or str(entry.get("username") or ""), password or str(entry.get("password") or "")
    return Login(name, password.rstrip("\0"), token) if token or password else None


def _ask(helper: str, host: str, path: Path) -> Login | None:
    """What a helper program knows (docker-credential-helpers' protocol: the host in, JSON out); None for nothing."""
    if not _HELPER.fullmatch(helper):
        raise SetupError(f"{helper!r} is no name of a helper program", where=str(path))
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=host.encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        message = f"docker-credential-{helper} cannot be asked ({type(error).__name__})"
        raise SetupError(message, where=str(path), hint="install it, or take it out of the file") from error
    name, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    if not secret:
        return None
    return Login(token=secret) if name == "<token>" else Login(name, secret)
