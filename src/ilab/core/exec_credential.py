"""The program that a kubeconfig names to get a token or certificate (``exec``): started without a shell, and in time.

    ExecCredential in $KUBERNETES_EXEC_INFO ─▶ the program ─▶ ExecCredential on its standard output: token, certificate,
                                                              and until when they hold

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ilab.errors import SetupError

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
LIMIT = 30.0  # seconds that the program may take
EARLY = timedelta(seconds=30)  # before its end a credential is asked for anew: a request takes its time
LIKE_KUBECTL = "kubectl get pods   starts the same program, and shows what it says"


@dataclass(frozen=True)
class Credential:
    """What the program gave: a token, or a certificate with its key (PEM). ``until``: None where it does not say."""

    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        return self.until is None or now + EARLY < self.until


class Plugin:
    """The program ``told`` (``users[].user.exec``) of a kubeconfig in ``folder``, for the entry ``cluster``.

    Raises ``SetupError`` where it is not to be started like this.
    """

    def __init__(self, told: Mapping[str, Any], folder: Path, cluster: Mapping[str, Any], environ: Mapping[str, str]):
        command = str(told.get("command") or "")
        self.version = str(told.get("apiVersion") or VERSIONS[0])
        if not command or self.version not in VERSIONS:
            raise SetupError(f"the kubeconfig's exec has no command, or its version is unknown: {self.version}")
        if told.get("interactiveMode") == "Always":
            raise SetupError(f"{command}, which gives the token, wants to ask somebody", hint=LIKE_KUBECTL)
        spec: dict[str, Any] = {"interactive": False}
        if told.get("provideClusterInfo"):
            spec["cluster"] = _shown(cluster)
        asked = {"apiVersion": self.version, "kind": "ExecCredential", "spec": spec}
        given = {str(one.get("name")): str(one.get("value")) for one in told.get("env") or [] if isinstance(one, dict)}
        self._line = [str(folder / command) if os.sep in command else command, *map(str, told.get("args") or [])]
        self._environ = {**environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
        self._found: Credential | None = None

    def credential(self) -> Credential:
        """What holds now; the program is started where nothing does. Raises ``SetupError``, with what it complained."""
        if self._found is None or not self._found.holds(datetime.now(UTC)):
            self._found = self._read(self._started())
        return self._found

    def forget(self) -> None:
        """What it gave is not taken any more: ask again next time."""
        self._found = None

    def _started(self) -> str:
        try:
            done = subprocess.run(
                self._line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
                env=self._environ,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"took more than {LIMIT:.0f} seconds") from error
        except (OSError, ValueError) as error:
            raise self._failed(f"cannot be started: {error}") from error
        if done.returncode:
            raise self._failed(f"failed: {_plain(done.stderr) or f'exit code {done.returncode}'}")
        return done.stdout

    def _read(self, said: str) -> Credential:
        try:
            found = json.loads(said)
            status = found["status"]
            if found["apiVersion"] != self.version:
                raise self._failed(f"answered for {_plain(str(found['apiVersion']))}, not for {self.version}")
            until = status.get("expirationTimestamp")
            made = Credential(
                str(status.get("token") or ""),
                str(status.get("clientCertificateData") or ""),
                str(status.get("clientKeyData") or ""),
                datetime.fromisoformat(str(until)) if until else None,
            )
            if made.until is not None and made.until.tzinfo is None:
                raise ValueError("a time of no zone")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._failed("printed no ExecCredential") from error  # what it printed may hold a secret
        if not made.token.isprintable() or not (made.token or (made.certificate and made.key)):
            raise self._failed("gave neither a token of one line nor a certificate with its key")
        return made

    def _failed(self, what: str) -> SetupError:
        return SetupError(f"{self._line[0]}, which gives the token, {what}", hint=LIKE_KUBECTL)


def _shown(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a kubeconfig's cluster that such a program is told (``spec.cluster``)."""
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    shown = {name: cluster[name] for name in names if cluster.get(name)}
    for one in cluster.get("extensions") or []:
        if isinstance(one, dict) and one.get("name") == "client.authentication.k8s.io/exec":
            shown["config"] = one.get("extension")
    return shown


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text.strip())[:300]
