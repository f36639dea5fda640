"""The reference application: projects and tasks for teams."""
