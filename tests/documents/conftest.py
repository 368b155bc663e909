"""Tests of documents use the PDF writer beside them, and share strategies of hostile files with those of taxonomies.

This folder itself is no place to import from: Python would take its ``site.py`` for the module that starts every Python.
"""

import importlib.util
import sys
from pathlib import Path

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE.parent / "strategies"))
_spec = importlib.util.spec_from_file_location("pdf_writer", _HERE / "pdf_writer.py")
assert _spec and _spec.loader
sys.modules["pdf_writer"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["pdf_writer"])
