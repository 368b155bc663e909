"""The user's own folders, under XDG's names: settings, data, and what can be fetched or made again.

Apart from :mod:`ilab.config`, so that what only needs a path does not load the whole configuration.
"""

from __future__ import annotations

import os
from pathlib import Path


def config_home() -> Path:
    """Where the user's settings are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "instructlab"


def data_home() -> Path:
    """Where the user's work is: stores, taxonomies, background processes."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "instructlab"


def cache_home() -> Path:
    """Where models and copies of documents are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instructlab"


def data_homes() -> list[Path]:
    """The data home, then the folders in which a site keeps data for all users."""
    site = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [data_home(), *(Path(folder) / "instructlab" for folder in site.split(":") if folder.startswith("/"))]


def expanded(text: str) -> Path:
    """``text`` as a path, with ``~`` for the home; that of nobody is left as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)
