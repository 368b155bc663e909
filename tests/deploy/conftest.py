"""The manifests as kubectl builds them, or as they stand in the files where there is no kubectl."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from deployment import DEPLOY, kubectl


@pytest.fixture(scope="session")
def built() -> dict[str, list[dict[str, Any]]]:
    """Environment -> objects of its overlay."""
    return {
        one: list(yaml.safe_load_all(kubectl("kustomize", str(DEPLOY / "overlays" / one)))) for one in ("dev", "prod")
    }


@pytest.fixture(scope="session")
def written() -> dict[str, list[dict[str, Any]]]:
    """File -> objects of it, for every manifest that is no kustomization."""
    files = [path for path in DEPLOY.rglob("*.yaml") if path.name not in ("kustomization.yaml", "pipeline.yaml")]
    return {str(path.relative_to(DEPLOY)): list(yaml.safe_load_all(path.read_text())) for path in files}
