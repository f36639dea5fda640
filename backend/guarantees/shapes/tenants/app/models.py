"""The tables."""

from sqlalchemy import DDL, event, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import ROLE, Base


class Note(Base):
    """A note, which only its tenant sees."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    tenant: Mapped[str] = mapped_column(server_default=text("current_setting('app.tenant')"))


for statement in (
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own_rows ON notes USING (tenant = current_setting('app.tenant'))",
    f"GRANT SELECT, INSERT ON notes TO {ROLE}",
    f"GRANT USAGE ON SEQUENCE notes_id_seq TO {ROLE}",
):
    event.listen(Note.__table__, "after_create", DDL(statement))
