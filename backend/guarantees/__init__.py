"""Tests of the conftest and its folder, one file a promise: docs/how-it-works.md lists them."""

import sys
from pathlib import Path

# Where the reference conftest finds fastapi_conftest, too.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
