"""The Model Registry of Kubeflow and OpenShift AI, through its own client (package `model-registry`).

The client and its server belong together: client 0.3 speaks ``/api/model_registry/v1/``, older ones ``v1alpha3``, and
neither understands the other. The extra pins the client; a server that is older is told apart by its 404.

Stage, aliases and a recall are properties of the version; one that is archived or recalled here has the state ARCHIVED
there, which takes it out of the dashboard's list. In a pod the token is its service account's, if no other is given.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ilab.core.kubeconfig import POD
from ilab.core.transport import shown
from ilab.errors import InputError, ServiceError, SetupError
from ilab.packaging.sinks import STATE, Release, facts_of

T = TypeVar("T")
AUTHOR = "ilab"
FORMAT, FORMAT_VERSION = "safetensors", "1"
API = "/api/model_registry/v1/"


class KubeflowRegistry:
    """The registry at ``url``; ``token`` may be empty for one without TLS, ``ca_file`` for the system's trust."""

    def __init__(self, url: str, token: str, ca_file: str) -> None:
        self.url, self._token, self._ca_file = url, token, ca_file

    def tell(self, release: Release) -> None:
        """Make or bring up to date model, version and artifact."""
        self._asked(lambda client: _tell(client, release))

    def ids(self, name: str, version: str) -> tuple[str, str] | None:
        """The identifiers of a model and its version there; None where there is none. Raises as :meth:`tell` does."""
        return self._asked(lambda client: _ids(client, name, version))

    def _asked(self, work: Callable[[Any], T]) -> T:
        """What ``work`` returns for a client of the registry; its errors are ours."""
        try:
            from aiohttp import ClientError
            from model_registry import ModelRegistry
            from model_registry.exceptions import StoreError
            from mr_openapi.exceptions import ApiException
        except ImportError as error:
            hint = "type: pip install 'ilab[model-registry]'"
            raise SetupError("a Kubeflow Model Registry needs the package model-registry", hint=hint) from error
        if self.url.startswith("https://") and not (self._token or (POD / "token").is_file()):
            hint = "--set where.package.model_registry_token=file:PATH"
            raise InputError("a registry behind TLS needs a token", where=shown(self.url), hint=hint)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a missing token, which a registry without TLS does not need
                client = ModelRegistry(
                    self.url,
                    author=AUTHOR,
                    user_token=self._token or None,
                    custom_ca=self._ca_file or None,
                    async_runner=_run,
                )
                return work(client)
        except ApiException as error:
            raise self._refusal(error.status) from error
        except (StoreError, ClientError, TimeoutError) as error:
            hint = "is the address right? see where.package.model_registry"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ServiceError(f"does not take the release: {reason}", where=shown(self.url), hint=hint) from error

    def _refusal(self, status: int | None) -> InputError | ServiceError:
        where = shown(self.url)
        if status in (401, 403):
            hint = "check the token: where.package.model_registry_token"
            return InputError(f"refuses access ({status})", where=where, hint=hint)
        if status == 404:
            hint = "an older server speaks v1alpha3, which this client does not; is the address right?"
            return ServiceError(f"does not speak {API} (404)", where=where, hint=hint)
        return ServiceError(f"answers {status}", where=where, hint="try again later", retryable=True)


def _tell(client: Any, release: Release) -> None:
    entry = release.entry
    known = client.get_registered_model(entry.name)
    version = client.get_model_version(entry.name, entry.version) if known is not None else None
    if version is None:
        client.register_model(
            entry.name,
            release.place,
            version=entry.version,
            model_format_name=FORMAT,
            model_format_version=FORMAT_VERSION,
            version_description="built from a taxonomy with ilab",
            metadata=facts_of(release),
        )
        version = client.get_model_version(entry.name, entry.version)
    else:
        artifact = client.get_model_artifact(entry.name, entry.version)
        if artifact is not None and artifact.uri != release.place:
            artifact.uri = release.place
            client.update(artifact)
    _update(client, version, release)


def _ids(client: Any, name: str, version: str) -> tuple[str, str] | None:
    model = client.get_registered_model(name)
    found = client.get_model_version(name, version) if model is not None else None
    return None if found is None else (str(model.id), str(found.id))


def _update(client: Any, version: Any, release: Release) -> None:
    """Bring a version's properties and state up to date; properties that others added stay."""
    from model_registry.types import ModelVersionState

    there = dict(version.custom_properties or {})
    wanted = {name: value for name, value in there.items() if name not in STATE} | facts_of(release)
    state = ModelVersionState.ARCHIVED if release.withdrawn else ModelVersionState.LIVE
    if (there, version.state) != (wanted, state):
        version.custom_properties, version.state = wanted, state
        client.update(version)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
