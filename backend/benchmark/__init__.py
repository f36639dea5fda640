"""The old conftest, the comparison, and what both need."""
