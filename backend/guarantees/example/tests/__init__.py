"""The tests of the example; each test of the conftest writes its own."""
