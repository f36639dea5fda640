# ADAPT 1/4: the application; its session factories, get_db's first, which all work on the one
# database of the test; its password hashing.
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app import main, security
from app.db import Base, ReportSession, SessionLocal
from app.models import User
from app.roles import setup_roles
from tests import factories

APP = main.app
SESSION_FACTORIES = [SessionLocal, ReportSession]
# Real argon2 at its cheapest: at production cost, hashing is dearer than all the rest of a test.
security.password_hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))

# ADAPT 2/4: the schema. METADATA: of the models, whose changes build it anew; so do those of these
# lines and of SCHEMA_FILES: all else that it is made of (migrations, SQL, further models).
# And setup_roles, here or imported: an async function that takes a session and adds the rows that
# every test may count on, or None.
METADATA = Base.metadata
SCHEMA_FILES: list[Path] = []


def create_schema(connection: sa.Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)


# ADAPT 3/4: make_engine: how the app makes its engine; a function of yours, make_engine(url,
# **options), lets our options win over the app's, and adds its event listeners. DRIVER: the app's,
# for when TEST_DATABASE_URL is not set. REAL_COMMITS: whether all tests run with real commits.
# ALLOWED: what else they may connect to: engines of other stores, or dialects such as "sqlite".
make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"
REAL_COMMITS = False
ALLOWED: list[Any] = []


# ADAPT 4/4: where requests seem to go; what makes one a user's own; your actors and other fixtures.
# A second app: a fixture like `client` with its ASGITransport, which asks for override_get_db. A
# second database: its tables in create_schema, its models in SCHEMA_FILES, its factory in the list.
# Redis: a fixture of yours; nothing here knows of it.
BASE_URL = "http://test"


def authenticate(user: User) -> dict[str, str]:
    """Return the headers of a request made by this user."""
    return {"Authorization": f"Bearer {security.create_access_token(user.id)}"}


@pytest_asyncio.fixture
async def regular_user(db: AsyncSession) -> User:
    """A user of the role that new users get."""
    return await factories.create_user(db, role="member")


@pytest_asyncio.fixture
async def admin_user(db: AsyncSession) -> User:
    """A user who may do everything."""
    return await factories.create_user(db, role="admin")
