import os
from collections.abc import Iterator

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

# Nobody listens there.
DRIVER = os.environ.get("DRIVER", "psycopg")
engine = create_engine(f"postgresql+{DRIVER}://nobody:secret@127.0.0.1:1/production")
SessionLocal = sessionmaker(engine)


class Base(DeclarativeBase):
    pass


def get_db() -> Iterator[Session]:
    with SessionLocal() as session:
        yield session
