"""The source of `look`, by which an inner test compares all that it finds in its database."""

# Everything that a test can find in its database: rows, sequences, the catalogue, the session.
LOOK = '''
import asyncio
import os

import pytest
import sqlalchemy as sa

from app.db import SessionLocal
from app.main import Db, app
from app.models import Role, User

pytestmark = pytest.mark.fresh_database

CATALOGUE = """
    SELECT 'class', (relname, relkind, relacl, relrowsecurity, relforcerowsecurity, relispartition,
      reltriggers)::text FROM (SELECT *, relhastriggers AS reltriggers FROM pg_class) AS c
      WHERE relname !~ '^pg_(temp|toast)' UNION ALL
    SELECT 'column', (attrelid::regclass, attname, atttypid, attnotnull, atthasdef,
      attisdropped)::text FROM pg_attribute WHERE attrelid >= 16384 UNION ALL
    SELECT 'function', (oid::regprocedure, prosrc)::text FROM pg_proc WHERE oid >= 16384 UNION ALL
    SELECT 'type', typname FROM pg_type WHERE oid >= 16384 AND typname !~ 'pg_temp' UNION ALL
    SELECT 'constraint', (conname, condeferrable, condeferred)::text FROM pg_constraint UNION ALL
    SELECT 'trigger', (tgname, tgenabled)::text FROM pg_trigger UNION ALL
    SELECT 'policy', polname FROM pg_policy UNION ALL
    SELECT 'rule', rulename FROM pg_rewrite WHERE oid >= 16384 UNION ALL
    SELECT 'default', pg_get_expr(adbin, adrelid) FROM pg_attrdef UNION ALL
    SELECT 'schema', (nspname, nspacl)::text FROM pg_namespace WHERE nspname !~ '^pg_' UNION ALL
    SELECT 'privilege', defaclacl::text FROM pg_default_acl UNION ALL
    SELECT 'comment', description FROM pg_description WHERE objoid >= 16384 UNION ALL
    SELECT 'statistics', stxname FROM pg_statistic_ext UNION ALL
    SELECT 'cast', castsource::text FROM pg_cast WHERE oid >= 16384 UNION ALL
    SELECT 'operator', oprname FROM pg_operator WHERE oid >= 16384 UNION ALL
    SELECT 'large object', oid::text FROM pg_largeobject_metadata UNION ALL
    SELECT 'setting', array_to_string(setconfig, ',') FROM pg_db_role_setting AS s
      JOIN pg_database AS d ON d.oid = setdatabase WHERE datname = current_database() UNION ALL
    SELECT 'sequence', (seqrelid::regclass, seqincrement)::text FROM pg_sequence UNION ALL
    SELECT 'two-phase', gid FROM pg_prepared_xacts WHERE database = current_database() UNION ALL
    SELECT 'prepared', name FROM pg_prepared_statements WHERE from_sql UNION ALL
    SELECT 'cursor', name FROM pg_cursors WHERE is_holdable UNION ALL
    SELECT 'channel', pg_listening_channels() UNION ALL
    SELECT 'lock', objid::text FROM pg_locks WHERE locktype = 'advisory' AND classid = 0
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) UNION ALL
    SELECT 'who', (current_user = session_user)::text UNION ALL
    SELECT 'path', current_setting('search_path') UNION ALL
    SELECT 'memory', current_setting('work_mem')
"""
TABLES = sa.text("SELECT oid::regclass::text, relkind FROM pg_class"
                 " WHERE relkind IN ('r', 'm', 'S')"
                 " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'")

async def everything(db):
    found = {str(tuple(row)) for row in await db.execute(sa.text(CATALOGUE))}
    for name, kind in (await db.execute(TABLES)).all():
        columns = "last_value, is_called" if kind == b"S" else "t"
        rows = await db.execute(sa.text(f"SELECT ({columns})::text FROM ONLY {name} AS t"
                                        if kind != b"m" else f"SELECT t::text FROM {name} AS t"))
        found |= {f"{name} {row[0]}" for row in rows}
    return found

async def test_0_notes_what_there_is(db):
    global clean
    clean = await everything(db)
    assert len(clean) > 100

async def attack(db, script):
    whole = "$$" in script or "'BEGIN" in script
    for statement in [script] if whole else script.split(";"):
        await db.execute(sa.text(statement.replace(":", "\\\\:")))
    await db.commit()

async def look(db):
    async with SessionLocal() as second, SessionLocal() as third:
        for each in db, second, third:  # as many connections as a test has had
            assert await everything(each) == clean
    await db.rollback()
    db.add(user := User(email="ada", desk=1))
    await db.commit()
    assert user.id == 1
    if await db.scalar(sa.text("SELECT to_regclass('cached') IS NOT NULL")):
        assert await db.scalar(sa.text("SELECT nextval('cached')")) == 1
'''
