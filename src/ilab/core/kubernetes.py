"""The Kubernetes API as plain HTTPS: objects are JSON, an answer of 400 and more is a ``Refused``.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ilab.core.kubeconfig import Account
from ilab.errors import ServiceError

TIMEOUT = 10.0  # seconds; a pod that is told to end has 30
LOG_BYTES = 4 * 2**20  # of one answer with log lines


class Refused(ServiceError):
    """The API server said no. ``status`` is that of HTTP; the message is the server's own."""

    def __init__(self, status: int, message: str, where: str) -> None:
        super().__init__(message, where=where, retryable=status == 429 or status >= 500)
        self.status = status


class Api:
    """An API server. A context manager; its calls raise ``Refused``, and ``ServiceError`` where nobody answers."""

    def __init__(self, account: Account, timeout: float = TIMEOUT) -> None:
        import httpx2

        from ilab.core.transport import proxy_for

        self.account = account
        proxy = account.proxy or ("" if account.pod else proxy_for(httpx2.URL(account.server)))
        self._http = httpx2.Client(verify=account.tls, timeout=timeout, trust_env=False, proxy=proxy or None)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self._object("GET", path, query=query)

    def find(self, path: str) -> dict[str, Any] | None:
        """The object at ``path``; None where there is none."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The objects of a list."""
        found = self.get(path, **query).get("items")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """``fieldValidation=Strict``: a field that the server does not know is an error, not left out."""
        return self._object("POST", path, body, {"fieldValidation": "Strict"})

    def delete(self, path: str) -> None:
        """Delete the object, and before it everything that was made for it. Nothing where there is none."""
        try:
            self._object("DELETE", path, {"propagationPolicy": "Foreground"})
        except Refused as refused:
            if refused.status != 404:
                raise

    def log(self, path: str, **query: str) -> str:
        """Lines of a container's log, at most ``LOG_BYTES``."""
        return self._ask("GET", path, None, {**query, "limitBytes": str(LOG_BYTES)}).decode("utf-8", "replace")

    def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and object of an answer, of a refusal too; the object is empty where it is none of JSON."""
        found = self._send(method, path, body, {})
        try:
            told = found.json()
        except ValueError:  # a proxy's page, in place of the API
            told = {}
        return found.status_code, told if isinstance(told, dict) else {}

    def _object(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        import json

        try:
            found = json.loads(self._ask(method, path, body, query or {}))
        except ValueError as error:
            raise ServiceError("the API server answered with no JSON", where=self.account.server) from error
        return found if isinstance(found, dict) else {}

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> bytes:
        answer = self._send(method, path, body, query)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, _reason(answer), f"{self.account.server}{path}")
        return bytes(answer.content)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
        """The answer to a request; a token of a program is asked for once more where it is not taken."""
        answer = self._sent(method, path, body, query)
        if answer.status_code == 401 and self.account.plugin is not None:
            self.account.plugin.forget()
            answer = self._sent(method, path, body, query)
        return answer

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
        import httpx2

        bearer = self.account.bearer()
        headers = {"accept": "application/json, */*", **({"authorization": f"Bearer {bearer}"} if bearer else {})}
        named = {"sni_hostname": self.account.host_name} if self.account.host_name else {}
        try:
            return self._http.request(
                method, self.account.server + path, params=dict(query), json=body, headers=headers, extensions=named
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            message = f"the API server of the cluster cannot be reached: {error or type(error).__name__}"
            hint = "kubectl cluster-info says whether it is there; then the same command again"
            raise ServiceError(message, where=self.account.server, hint=hint, retryable=True) from error


def _reason(answer: Any) -> str:
    """What a ``Status`` object says, in one line."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    message = said.get("message") if isinstance(said, dict) else None
    return plain(str(message)) if message else f"the API server answered {answer.status_code}"


def plain(text: str, most: int = 500) -> str:
    """``text`` from somewhere else as one printable line."""
    return "".join(letter if letter.isprintable() else " " for letter in text.strip())[:most]
