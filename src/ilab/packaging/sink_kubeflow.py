"""The Model Registry of Kubeflow and OpenShift AI, through its own client (package `model-registry`).

The client and its server belong together: client 0.3 speaks ``/api/model_registry/v1/``, older ones ``v1alpha3``, and
neither understands the other. The extra pins the client; a server that is older is told apart by its 404.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

from ilab.core.transport import shown
from ilab.errors import InputError, ServiceError, SetupError
from ilab.packaging.registry import Entry
from ilab.packaging.sinks import facts_of

T = TypeVar("T")
AUTHOR = "ilab"
FORMAT, FORMAT_VERSION = "safetensors", "1"
API = "/api/model_registry/v1/"


class KubeflowRegistry:
    """The registry at ``url``; ``token`` may be empty for one without TLS, ``ca_file`` for the system's trust."""

    def __init__(self, url: str, token: str, ca_file: str) -> None:
        self._url, self._token, self._ca_file = url, token, ca_file

    def register(self, entry: Entry) -> None:
        """Make or bring up to date model, version and artifact."""
        try:
            from aiohttp import ClientError
            from model_registry import ModelRegistry
            from model_registry.exceptions import StoreError
            from mr_openapi.exceptions import ApiException
        except ImportError as error:
            hint = "type: pip install 'ilab[model-registry]'"
            raise SetupError("a Kubeflow Model Registry needs the package model-registry", hint=hint) from error
        if self._url.startswith("https://") and not self._token:
            hint = "--set where.package.model_registry_token=file:PATH"
            raise InputError("a registry behind TLS needs a token", where=shown(self._url), hint=hint)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about a missing token, which a registry without TLS does not need
                client = ModelRegistry(
                    self._url,
                    author=AUTHOR,
                    user_token=self._token or None,
                    custom_ca=self._ca_file or None,
                    async_runner=_run,
                )
                _tell(client, entry)
        except ApiException as error:
            raise self._refusal(error.status) from error
        except (StoreError, ClientError, TimeoutError) as error:
            hint = "is the address right? see where.package.model_registry"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ServiceError(f"does not take the release: {reason}", where=shown(self._url), hint=hint) from error

    def _refusal(self, status: int | None) -> InputError | ServiceError:
        where = shown(self._url)
        if status in (401, 403):
            hint = "check the token: where.package.model_registry_token"
            return InputError(f"refuses access ({status})", where=where, hint=hint)
        if status == 404:
            hint = "an older server speaks v1alpha3, which this client does not; is the address right?"
            return ServiceError(f"does not speak {API} (404)", where=where, hint=hint)
        return ServiceError(f"answers {status}", where=where, hint="try again later", retryable=True)


def _tell(client: Any, entry: Entry) -> None:
    uri = entry.remote or entry.uri
    known = client.get_registered_model(entry.name)
    version = client.get_model_version(entry.name, entry.version) if known is not None else None
    if version is None:
        client.register_model(
            entry.name,
            uri,
            version=entry.version,
            model_format_name=FORMAT,
            model_format_version=FORMAT_VERSION,
            version_description="built from a taxonomy with ilab",
            metadata=facts_of(entry),
        )
        return
    artifact = client.get_model_artifact(entry.name, entry.version)
    if artifact is not None and artifact.uri != uri:
        artifact.uri = uri
        client.update(artifact)
    if (version.custom_properties or {}).get("digest") != entry.digest:
        version.custom_properties = facts_of(entry)
        client.update(version)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
