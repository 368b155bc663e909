"""A models folder of the test's own, and the command line in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ilab.cli.app import hoisted, main

sys.path.insert(0, str(Path(__file__).parent))

from lamp import Run


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder, of an own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "instructlab" / "models"


@pytest.fixture
def ilab(models: Path) -> Run:
    """The command line. An error of ours, or of click's, is raised, as ``app.run`` sees it."""

    def run(*arguments: str, **more: str) -> Result:
        result = CliRunner().invoke(main, hoisted(arguments), standalone_mode=False, **more)
        if result.exception is not None:
            raise result.exception
        return result

    return run
