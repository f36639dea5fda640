"""Tests of the conftest itself, one file a promise: docs/how-it-works.md lists them."""
