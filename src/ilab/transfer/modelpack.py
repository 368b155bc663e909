"""A model as the CNCF's ModelPack has it (model-spec 1.0): every file a layer as it is, and a config about the model.

A layer's digest is the file's own, so a registry stores a file once, whoever packs it, and anybody can check it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ilab.transfer.registry import FILEPATH, MANIFEST

CONFIG = "application/vnd.cncf.model.config.v1+json"
ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True)
class RawLayer:
    """A file: its ``name`` in the model's folder, ``digest`` (``sha256:…``), ``size`` in bytes."""

    name: str
    digest: str
    size: int


def model_pack(
    layers: Sequence[RawLayer], descriptor: Mapping[str, Any], about: Mapping[str, Any], annotations: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """The manifest and the config. ``descriptor`` says name, version, licences; ``about`` architecture, precision."""
    form = "gguf" if not any(layer.name.endswith(".safetensors") for layer in layers) else "safetensors"
    config = _json(
        {
            "descriptor": dict(descriptor),
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
            "config": {"format": form, **about},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST[0],
        "artifactType": ARTIFACT,
        "config": {
            "mediaType": CONFIG,
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": f"application/vnd.cncf.model.{_kind(layer.name)}.v1.raw",
                "digest": layer.digest,
                "size": layer.size,
                "annotations": {FILEPATH: layer.name},
            }
            for layer in layers
        ],
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    return _json(manifest), config


def _kind(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _WEIGHTS:
        return "weight"
    return "doc" if suffix in (".md", "") else "weight.config"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
