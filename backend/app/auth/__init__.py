"""Sign-up, login and refresh-token rotation."""
