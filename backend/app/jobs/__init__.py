"""A job queue in the database."""
