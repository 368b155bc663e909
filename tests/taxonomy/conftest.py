"""Tests of hostile files share their strategies with those of documents."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "strategies"))
