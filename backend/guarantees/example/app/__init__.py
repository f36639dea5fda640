"""An application of one table, for the tests of the conftest."""
