"""Projects of a team."""
