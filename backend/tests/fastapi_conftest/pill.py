"""What keeps the transaction of a test from being committed: the server itself.

The pill is the row of a temporary table, whose deferred trigger fires at the end of the
transaction and stops every COMMIT, however it is written and whoever sends it.
"""

from .project import PREFIX

ENDS = "this would end the transaction of the test, or fire its deferred triggers now."
STATE, STATE_OF_SESSION = "FC001", "FC002"  # the SQLSTATEs of the trigger, and of `_check`
ONLY_HERE = (  # SQLSTATEs of errors that real commits may not meet
    STATE,
    STATE_OF_SESSION,
    "0A000",  # a statement that was prepared before its table was changed
    "25001",  # VACUUM and the like, which no transaction allows
    "3B001",  # the savepoint is gone: somebody has ended the transaction and begun another
    "25P01",  # there is no transaction
    "55006",  # DISCARD TEMP, because the pill's trigger has not fired
    "55P04",  # a value that was added to an enum, and is not committed in truth
)
OF_ONE_SESSION = (
    "a temporary object, a cursor or a prepared statement, which belongs to one session or "
    "transaction of the server."
)
SAVEPOINT = f"SAVEPOINT {PREFIX}"
# How often the test has changed the catalogue's tables of columns, types and functions: also what
# was rolled back counts, for prepared statements are stale then.
CHANGES = " + ".join(
    f"pg_stat_get_xact_tuples_{what}('{table}'::regclass)"
    for table in ("pg_attribute", "pg_type", "pg_proc")
    for what in ("inserted", "updated", "deleted")
)
PREPARED = "EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql)"
CURSORS = "EXISTS (SELECT FROM pg_cursors WHERE name <> '')"
TEMPORARY = " OR ".join(
    f"EXISTS (SELECT FROM pg_{table} WHERE {prefix}namespace = pg_my_temp_schema() AND NOT "
    f"starts_with({prefix}name, '{PREFIX}'))"
    for table, prefix in (("class", "rel"), ("proc", "pro"))
)
# On each new connection. `_begin` takes the pill, ends the advisory locks that a test has left, and
# sets the sequences back; a procedure, because the server plans nothing for a CALL. `_verify` fails
# after DDL. `_check` does what a COMMIT does with deferred constraints, and fails where there is
# something that a COMMIT would end, or that other sessions would not see. The application may work
# in a role that it takes on each connection, and that may not set the sequences back.
PREPARE = f"""
    BEGIN READ WRITE; SET LOCAL ROLE NONE;
    CREATE TEMP TABLE {PREFIX} ();
    CREATE FUNCTION pg_temp.{PREFIX}_stop() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE '{ENDS}' USING ERRCODE = '{STATE}'; END $$;
    CREATE CONSTRAINT TRIGGER {PREFIX} AFTER INSERT ON {PREFIX} DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW EXECUTE FUNCTION pg_temp.{PREFIX}_stop();
    CREATE PROCEDURE pg_temp.{PREFIX}_begin() LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      INSERT INTO pg_temp.{PREFIX} DEFAULT VALUES;
      PERFORM pg_advisory_unlock_all(), @restart;
    END $$;
    CREATE PROCEDURE pg_temp.{PREFIX}_verify() LANGUAGE plpgsql AS $$ BEGIN
      IF {CHANGES} > 0 THEN RAISE 'DDL'; END IF;
      IF {PREPARED} THEN RAISE 'PREPARE'; END IF;
    END $$;
    CREATE FUNCTION pg_temp.{PREFIX}_check() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE able text; late text; BEGIN
      IF {PREPARED} OR {CURSORS} OR {TEMPORARY} THEN
        RAISE '{OF_ONE_SESSION}' USING ERRCODE = '{STATE_OF_SESSION}';
      END IF;
      SELECT string_agg(name, ', '), string_agg(name, ', ') FILTER (WHERE condeferred)
        INTO able, late FROM pg_constraint JOIN pg_namespace AS n ON n.oid = connamespace,
        format('%I.%I', nspname, conname) AS name WHERE condeferrable AND conname <> '{PREFIX}';
      IF able IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' || able || ' IMMEDIATE'; END IF;
      IF late IS NOT NULL THEN EXECUTE 'SET CONSTRAINTS ' || late || ' DEFERRED'; END IF;
    END $$;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA pg_temp TO PUBLIC;
    COMMIT;
    SELECT pg_stat_force_next_flush()
"""
BEGIN = f"BEGIN READ WRITE; CALL pg_temp.{PREFIX}_begin(); {SAVEPOINT}"
VERIFY = f"CALL pg_temp.{PREFIX}_verify(); "
CHECK = f"SELECT pg_temp.{PREFIX}_check()"  # its errors are those of a COMMIT
