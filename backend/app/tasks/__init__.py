"""Tasks: the ordered, searchable work of a project."""
