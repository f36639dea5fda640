"""The tables, an extension and a trigger."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade():
    """Create everything."""
    # The wheel has the one, most servers have the other.
    query = "SELECT name FROM pg_available_extensions WHERE name IN ('vector', 'citext') LIMIT 1"
    op.execute(f"CREATE EXTENSION {op.get_bind().scalar(sa.text(query))}")
    op.execute("CREATE TABLE roles (id serial PRIMARY KEY, name text NOT NULL UNIQUE)")
    op.execute("""
        CREATE TABLE users (
            id serial PRIMARY KEY, email text NOT NULL UNIQUE, desk int,
            role_id int REFERENCES roles, changed_at timestamp
        )
    """)
    op.execute("""
        CREATE FUNCTION date_change() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.changed_at = clock_timestamp(); RETURN NEW; END'
    """)
    op.execute("""
        CREATE TRIGGER date_change BEFORE INSERT OR UPDATE ON users
        FOR EACH ROW EXECUTE FUNCTION date_change()
    """)
