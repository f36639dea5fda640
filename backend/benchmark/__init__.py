"""The old conftest, the comparison, and what both need."""

import sys
from pathlib import Path

# Where the reference conftest finds fastapi_conftest, too.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
