"""Comments on tasks, and who they mention."""
