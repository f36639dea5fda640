"""Our conftest with a block for the neutral suite, written to a file as an adopter's copy is."""

from pathlib import Path

from upgrade.parts import parts

from benchmark.runs import TESTS

BLOCK = """
from benchmark.rivals.neutral.models import Base

APP = FastAPI()
SESSION_FACTORIES = [async_sessionmaker()]
METADATA = Base.metadata
SCHEMA_FILES: list[Path] = []
setup_roles = None


def create_schema(connection: sa.Connection) -> None:
    METADATA.create_all(connection)


make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"
REAL_COMMITS = False
ALLOWED: list[Any] = []
BASE_URL = "http://test"
User = Any


def authenticate(user: User) -> dict[str, str]:
    return {}


@pytest.fixture
def session(db: AsyncSession) -> AsyncSession:
    return db


"""


def write_conftest(folder: Path) -> Path:
    """Write the copy into a folder, and return its path."""
    ours = parts((TESTS / "conftest.py").read_text(encoding="utf-8"))
    copy = folder / "ours.py"
    copy.write_text(f"{ours.head}{BLOCK}{ours.machinery}", encoding="utf-8")
    return copy
