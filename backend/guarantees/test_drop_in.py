"""Promise 11: in projects of other shapes, what changes is the ADAPT block, by ten lines at most.

`make shapes` runs these in an environment of their own: SQLModel and fastapi-users need older
versions of the packages that the reference application uses.
"""

import difflib
import re
import shutil
from pathlib import Path

import pytest

from guarantees.conftest import HERE, REAL_CONFTEST, Project, code

LINE = "# Nothing below this line needs editing.\n"
DOCS = HERE.parent.parent / "docs" / "adopting.md"
IMPORTS = """from app.db import Base, SessionLocal
from app.main import app as application
"""
SCHEMA = '''SCHEMA_FILES: list[Path] = []


def create_schema(connection: sa.Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)
'''
HASHING = (
    "security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, "
    "parallelism=1),))\n"
)

HEADERS = '    return {"Authorization": f"Bearer {security.create_access_token(user.id)}"}\n'

# What each shape replaces in the ADAPT block, and how many tests of its own then pass.
SHAPES: dict[str, tuple[int, dict[str, str]]] = {
    "SQLModel": (
        2,
        {
            "from app.db import Base, SessionLocal\n": "from sqlmodel import SQLModel\n"
            "from app.db import SessionLocal\n",
            "METADATA = Base.metadata\n": "METADATA = SQLModel.metadata\n",
        },
    ),
    "factory": (
        2,
        {
            IMPORTS: "from app.db import Base\nfrom app.main import Settings, create_app\n",
            "SESSION_FACTORIES = [SessionLocal]\n": 'application = create_app(Settings("postgresql'
            '+asyncpg://", greeting="Hello"))\nSESSION_FACTORIES = [application.state.sessions]\n',
        },
    ),
    "Alembic": (
        3,
        {
            "# isort: split\n": "# isort: split\nimport alembic.command\nimport alembic.config\n",
            SCHEMA: code(DOCS, "python")[1],
        },
    ),
    "psycopg": (6, {'DRIVER = "postgresql+asyncpg"\n': 'DRIVER = "postgresql+psycopg"\n'}),
    "manager": (
        2,
        {
            "from app.db import Base, SessionLocal\n": "from app.db import Base, "
            "DatabaseSessionManager\n",
            "SESSION_FACTORIES = [SessionLocal]\n": "application.state.database = "
            'DatabaseSessionManager("postgresql+asyncpg://")\n'
            "SESSION_FACTORIES = [application.state.database.factory]\n",
        },
    ),
    "two_apps": (
        3,
        {
            "import Base, SessionLocal\n": "import Base, ReportSession, SessionLocal\n",
            "[SessionLocal]\n": "[SessionLocal, ReportSession]\n",
        },
    ),
    "schemas": (
        2,
        {
            "    METADATA.create_all(connection)\n": '    for schema in ("people", "access"):\n'
            "        connection.execute(sa.schema.CreateSchema(schema))\n"
            "    METADATA.create_all(connection)\n",
        },
    ),
    "src": (2, {}),
    "no_settings": (2, {}),
    "strict_mode": (2, {}),
    "anyio": (2, {}),
    "fastapi_users": (
        3,
        {
            "from pwdlib.hashers.argon2 import Argon2Hasher\n": "from pwdlib.hashers.argon2 import "
            "Argon2Hasher\nfrom fastapi_users.jwt import generate_jwt\n"
            "from fastapi_users.password import PasswordHelper\n",
            "from app import security\n": "from app import main\n",
            "from app.db import Base, SessionLocal\n": "from app.db import Base, "
            "async_session_maker\n",
            "[SessionLocal]\n": "[async_session_maker]\n",
            HASHING: "HASHER = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)\n"
            "main.password_helper = PasswordHelper(PasswordHash((HASHER,)))\n",
            HEADERS: '    claims = {"sub": str(user.id), "aud": "fastapi-users:auth"}\n    return '
            '{"Authorization": f"Bearer {generate_jwt(claims, main.SECRET, 3600)}"}\n',
        },
    ),
}


def adapt(project: Project, replacements: dict[str, str]) -> int:
    """Change the ADAPT block of the project's conftest; return how many lines of it are new."""
    before, below = REAL_CONFTEST.read_text(encoding="utf-8").split(LINE)
    after = before
    for old, new in replacements.items():
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    project.write("tests/conftest.py", after + LINE + below)
    diff = difflib.ndiff(before.splitlines(), after.splitlines())
    return sum(line.startswith("+ ") for line in diff)


def lay_out(project: Project, shape: str) -> None:
    """Make the example a project of this shape."""
    folder = HERE / "shapes" / shape.lower()
    if folder.exists():
        shutil.copytree(folder, project.path, dirs_exist_ok=True)
    else:
        shutil.copytree(
            HERE / "shapes" / "src" / "tests", project.path / "tests", dirs_exist_ok=True
        )
    if shape == "src":
        (project.path / "src").mkdir()
        (project.path / "app").rename(project.path / "src" / "app")
    if shape == "psycopg":
        url = project.environment["TEST_DATABASE_URL"]
        project.environment["TEST_DATABASE_URL"] = url.replace("+asyncpg", "+psycopg")
    if shape == "strict_mode":
        project.write("pytest.ini", "[pytest]\nasyncio_mode = strict\nfilterwarnings = error\n")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_adapt_block_is_all_that_changes(project: Project, shape: str) -> None:
    tests, replacements = SHAPES[shape]
    lay_out(project, shape)
    lines = adapt(project, replacements)

    result = project.run()

    result.assert_outcomes(passed=tests)
    assert lines <= 10
    documented = re.findall(rf"^\| `{shape}` .*\| (\d+) \|$", DOCS.read_text(), re.MULTILINE)
    assert documented == [str(lines)]


def test_another_driver_runs_on_workers_too(project: Project) -> None:
    lay_out(project, "psycopg")
    adapt(project, SHAPES["psycopg"][1])

    result = project.run("-n", "2")

    result.assert_outcomes(passed=SHAPES["psycopg"][0])


def test_the_docs_count_no_shape_that_does_not_exist() -> None:
    named = re.findall(r"^\| `(\w+)` ", Path(DOCS).read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(named) == sorted(SHAPES)
