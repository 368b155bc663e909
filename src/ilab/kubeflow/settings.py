"""What a namespace says of *where*: the key ``ilab.yaml`` in its ConfigMap of parameters, read when a run begins.

    where:                                     in the words of a project's own file, and nothing but this group
      web: {ca_file: /var/run/ilab/ca/own.pem}
      documents: {mirrors: {https://git.example/docs.git: https://git.inside/docs.git}}

It lies under what the run sets itself: store and cache, the servers that Secrets name, what trains. A Secret goes
before a server of the same role; where the document has no address for it, its other settings are the Secret's
server's. The settings of whoever submits reach no pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ilab.config import Where, check_source
from ilab.config_source import Source, joined, parse_source
from ilab.config_where import UNSERVED
from ilab.errors import InputError, InputErrors
from ilab.parameters.files import SETTINGS_KEY

# What of a laptop's settings would matter to a pod. Of teacher and judge the Secrets have the address.
MATTER = (
    "s3_endpoint", "teacher", "verifier", "judge", "embedder", "documents", "web", "package", "train.report_to",
    "train.mlflow_uri", "train.kernels", "train.compile",
)  # fmt: skip
SERVED = ("teacher", "judge")
OF_SECRETS = tuple(f"where.{role}.{name}" for role in SERVED for name in ("url", "model", "api_key"))


def read_document(text: str, config_map: str) -> Source:
    """The document. Raises InputError with its line for what is no YAML, and for anything but ``where``."""
    source = parse_source(text, Path(f"ConfigMap {config_map}: {SETTINGS_KEY}"))
    for name in source.tree:
        if name != "where":
            hint = "parameters are keys of the ConfigMap beside it; pipeline and environment are the run's"
            raise InputError(f"only `where` is read here, not {name!r}", where=source.place(str(name)), hint=hint)
    if not isinstance(source.tree.get("where", {}), Mapping):
        raise InputError("must be a mapping of settings", where=source.place("where"))
    return source


def where_of_run(document: Source, own: Mapping[str, Any]) -> dict[str, Any]:
    """``where`` of a run's settings: ``own`` over the document's.

    Raises InputError(s) with the document's lines for unknown and wrong settings.
    """
    below = document.tree.get("where", {})
    above = dict(own)
    for role, server in own.items():
        said = below.get(role)
        if isinstance(server, Mapping) and "url" in server and isinstance(said, Mapping) and "url" not in said:
            above[role] = {**said, **server}
    where = joined(below, above)
    wrong = check_source(Source(document.path, {"where": where}, document.lines))
    if wrong:
        raise wrong[0] if len(wrong) == 1 else InputErrors(wrong)
    return where


def parsed(document: Source) -> Where:
    """The document's settings by themselves; a server whose address its Secret has is one that is not served yet."""
    below = document.tree.get("where", {})
    said = {role: below[role] for role in SERVED if isinstance(below.get(role), Mapping)}
    later = {role: {"url": UNSERVED} for role, server in said.items() if server and "url" not in server}
    return Where.model_validate(where_of_run(document, later))


def not_in_pods(origins: Mapping[str, str], document: Source) -> list[str]:
    """The settings of ``origins`` (path -> where it was given) that pods would need and the document does not have."""
    groups = tuple(f"where.{name}" for name in MATTER)
    return sorted(
        path
        for path, origin in origins.items()
        if (path in groups or path.startswith(tuple(f"{group}." for group in groups)))
        and not any(other.startswith(f"{path}.") for other in origins)  # a group, whose settings are named themselves
        and path not in document.lines
        and path not in OF_SECRETS
        and not origin.startswith("profile ")
    )
