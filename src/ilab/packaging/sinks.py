"""Other registries that are told of a release, behind one small protocol: a sink takes an entry.

Telling twice is telling once: a version that is there with the same digest is left, one with another is brought up to
date. A sink is told what a person would look for there: name, version, where the package is, its digest, its metrics.
"""

from __future__ import annotations

from typing import Protocol

from ilab.config import Where
from ilab.errors import InputError
from ilab.models.secret import read_secret
from ilab.packaging.registry import Entry


class Sink(Protocol):
    """A registry of others."""

    def register(self, entry: Entry) -> None:
        """Tell it of ``entry``. Raises ``ServiceError`` where it cannot be reached or refuses, ``InputError`` where the
        login does not do, ``SetupError`` without its client."""
        ...


def sinks_of(where: Where) -> list[Sink]:
    """Those that ``where.package`` names. Raises ``InputError`` for a token that cannot be read."""
    given = where.package
    sinks: list[Sink] = []
    if given.model_registry:
        from ilab.packaging.sink_kubeflow import KubeflowRegistry

        token = read_secret(given.model_registry_token, "where.package.model_registry_token")
        sinks.append(KubeflowRegistry(_address(given.model_registry), token, where.web.ca_file or ""))
    if given.mlflow:
        from ilab.packaging.sink_mlflow import MlflowRegistry

        sinks.append(
            MlflowRegistry(
                _address(given.mlflow), read_secret(given.mlflow_token, "where.package.mlflow_token"), where.web
            )
        )
    return sinks


def facts_of(entry: Entry) -> dict[str, str | float]:
    """What is told beside name, version and place: texts and numbers, by name."""
    numbers = {name: float(value) for name, value in entry.metrics.items() if _is_number(value)}
    words = {name: str(value) for name, value in entry.metrics.items() if value is not None and name not in numbers}
    return {"digest": entry.digest, "ilab_version": entry.version, **dict(sorted((numbers | words).items()))}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InputError("is no address of a server", where=url, hint="it begins with https:// or http://")
    return url.rstrip("/")
