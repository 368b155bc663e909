"""Tests of documents use the PDF writer beside them and share strategies of hostile files with those of taxonomies."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "strategies")]
