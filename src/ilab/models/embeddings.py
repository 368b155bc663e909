"""Embeddings from an OpenAI-compatible server (``POST /v1/embeddings``), in batches, in the order of the texts."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from ilab.errors import ServiceError, SetupError
from ilab.models.secret import read_secret

BATCH = 64  # texts of one request
TIMEOUT = 120.0  # seconds for one request


HINT = "check --embeddings URL (as http://127.0.0.1:8000/v1) and --embedding-model NAME; or leave both out"


def embed(
    url: str,
    model: str,
    texts: Sequence[str],
    api_key: str = "",
    *,
    timeout: float = TIMEOUT,
    ca_file: str | None = None,
    hint: str = HINT,
) -> list[list[float]]:
    """One vector for each of ``texts``. ``api_key`` refers to the key (``env:NAME`` or ``file:PATH``).

    ``timeout`` is in seconds for one request, ``ca_file`` holds certificates to trust besides the system's. Raises
    ServiceError (with ``hint``) where the server cannot be reached, refuses, or answers with something else,
    SetupError where ``ca_file`` cannot be read.
    """
    try:
        return _embed(url, model, texts, api_key, timeout, ca_file)
    except ServiceError as error:
        error.hint = hint
        raise


def _embed(
    url: str, model: str, texts: Sequence[str], api_key: str, timeout: float, ca_file: str | None
) -> list[list[float]]:
    key = read_secret(api_key)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"{url.rstrip('/')}/embeddings"
    vectors: list[list[float]] = []
    with httpx2.Client(timeout=timeout, headers=headers, verify=_trusted(ca_file)) as client:
        for begin in range(0, len(texts), BATCH):
            part = list(texts[begin : begin + BATCH])
            try:
                answer = client.post(address, json={"model": model, "input": part})
                body = answer.json() if answer.is_success else None
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise _failed(address, f"cannot be asked: {error}") from error
            except ValueError as error:
                raise _failed(address, "answered with something that is no JSON") from error
            if body is None:
                raise _failed(address, f"refused (HTTP {answer.status_code}): {answer.text[:200]}")
            vectors += _read(body, len(part), address)
    if len({len(vector) for vector in vectors}) > 1:
        raise _failed(address, "gave vectors of different lengths")
    return vectors


def _read(body: Any, count: int, address: str) -> list[list[float]]:
    """The vectors of one answer, by their ``index``."""
    try:
        found = {entry["index"]: [float(value) for value in entry["embedding"]] for entry in body["data"]}
        return [found[index] for index in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise _failed(address, f"did not answer with {count} embeddings") from error


def _trusted(ca_file: str | None) -> ssl.SSLContext | bool:
    if not ca_file:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=str(Path(ca_file).expanduser()))
    except OSError as error:  # ssl.SSLError is one
        raise SetupError(f"this certificate cannot be used ({error})", where=ca_file) from error
    return context


def _failed(address: str, message: str) -> ServiceError:
    return ServiceError(f"the embeddings server {message}", where=address)
