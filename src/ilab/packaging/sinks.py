"""Other registries that are told of releases, behind one small protocol: a sink takes a release as it is here now.

    ilab run (register) ─┐                                       ┌─▶ Kubeflow Model Registry: properties, state
    promote, rollback,  ─┼─▶ this project's registry ─▶ releases ┤
    alias, recall, sync ─┘                                       └─▶ MLflow: tags, aliases

A release is a version with its stage, its aliases and whether it was recalled. Telling twice is telling once: what is
there already is left, what is not is brought up to date, and what people added there stays. What changes here changes
here first: a registry that cannot be told makes an error that says so, and ``ilab registry sync`` tells it later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from ilab.config import Where
from ilab.errors import IlabError, InputError, ServiceError
from ilab.models.secret import read_secret
from ilab.packaging.registry import Entry
from ilab.packaging.stages import Stages

STATE = ("stage", "aliases", "recalled")  # facts that change without a new package
ARCHIVED = "archived"


@dataclass(frozen=True)
class Release:
    """An entry and the aliases that mean it."""

    entry: Entry
    aliases: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where others find the package."""
        return self.entry.remote or self.entry.uri

    @property
    def withdrawn(self) -> bool:
        return bool(self.entry.recalled) or self.entry.stage == ARCHIVED


class Sink(Protocol):
    """A registry of others, at ``url``."""

    @property
    def url(self) -> str: ...

    def tell(self, release: Release) -> None:
        """Bring it up to date. Raises ``ServiceError`` where it cannot be reached or refuses, ``InputError`` where the
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


def links_of(where: Where, name: str, version: str) -> dict[str, str]:
    """What the dashboard of OpenShift AI leads from a run's model to its version in the Kubeflow Model Registry by:
    metadata of the model's artifact; empty without such a registry, or where it has no such version.

    Without ``where.package.model_registry_name`` the registry is called what its address begins with
    (``https://models-rest.apps.example`` is ``models``). Raises what :meth:`Sink.tell` does.
    """
    given = where.package
    if not given.model_registry:
        return {}
    from ilab.packaging.sink_kubeflow import KubeflowRegistry

    token = read_secret(given.model_registry_token, "where.package.model_registry_token")
    ids = KubeflowRegistry(_address(given.model_registry), token, where.web.ca_file or "").ids(name, version)
    if ids is None:
        return {}
    host = urlsplit(given.model_registry).hostname or ""
    return {
        "modelRegistryName": given.model_registry_name or host.partition(".")[0].removesuffix("-rest"),
        "registeredModelName": name,
        "registeredModelId": ids[0],
        "modelVersionName": version,
        "modelVersionId": ids[1],
    }


def any_sinks(where: Where) -> bool:
    """Whether anybody is to be told."""
    return bool(where.package.model_registry or where.package.mlflow)


def releases(stages: Stages, name: str) -> list[Release]:
    """Every version of a model as it is now, lowest first."""
    aliases = stages.aliases(name)
    return [
        Release(entry, tuple(alias for alias, version in aliases.items() if version == entry.version))
        for entry in stages.registry.list()
        if entry.name == name
    ]


def to_be(stages: Stages, entry: Entry) -> Release:
    """What ``entry`` will be when it is registered: a package that was here before keeps its stage, and a recall."""
    known = [one for one in stages.registry.history(entry.name, entry.version) if one.digest == entry.digest]
    kept = {"stage": known[0].stage, "recalled": known[0].recalled} if known else {}
    aliases = stages.aliases(entry.name).items()
    return Release(entry.model_copy(update=kept), tuple(alias for alias, to in aliases if to == entry.version))


@contextmanager
def followed(stages: Stages, name: str, where: Where) -> Iterator[None]:
    """Tell others of every release of ``name`` that the block changes. Raises what :func:`tell_later` does."""
    if not any_sinks(where):
        yield
        return
    before = releases(stages, name)

    def tell() -> None:
        tell_later([one for one in releases(stages, name) if one not in before], where)

    try:
        yield
    except IlabError:
        with suppress(ServiceError):  # what the block says is the more important
            tell()
        raise
    tell()


def tell_later(changed: Sequence[Release], where: Where) -> int:
    """Tell every sink what is true here already; how many there are. Raises ``ServiceError``, after all that could be
    told were, where one could not."""
    wrong: dict[str, str] = {}
    try:
        sinks = sinks_of(where) if changed else []
    except IlabError as error:
        raise _untold({error.where: error.message}, changed) from error
    for sink in sinks:
        try:
            for release in changed:
                sink.tell(release)
        except IlabError as error:
            wrong[error.where or sink.url] = error.message
    if wrong:
        raise _untold(wrong, changed)
    return len(sinks)


def _untold(wrong: dict[str, str], changed: Sequence[Release]) -> ServiceError:
    names = sorted({one.entry.name for one in changed})
    reasons = "; ".join(f"{place}: {reason}" if place else reason for place, reason in wrong.items())
    return ServiceError(
        f"this registry says it now, but not everybody could be told: {reasons}",
        hint=f"mend that, then tell them: ilab registry sync {' '.join(names[:1])}",
        retryable=True,
    )


def facts_of(release: Release) -> dict[str, str | float]:
    """What is told beside name, version and place: texts and numbers, by name; of the state only what holds."""
    entry = release.entry
    numbers = {name: float(value) for name, value in entry.metrics.items() if _is_number(value)}
    words = {name: str(value) for name, value in entry.metrics.items() if value is not None and name not in numbers}
    state = {"stage": entry.stage, "aliases": ", ".join(release.aliases), "recalled": entry.recalled}
    return {
        "digest": entry.digest,
        "ilab_version": entry.version,
        **dict(sorted((numbers | words).items())),
        **{name: text for name, text in state.items() if text},
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InputError("is no address of a server", where=url, hint="it begins with https:// or http://")
    return url.rstrip("/")
