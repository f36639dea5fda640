"""What CI runs besides the tests."""
