# ADAPT 1/4: the application.
#   APP                the FastAPI application
#   SESSION_FACTORIES  get_db's first; all of them work on the one database of the test
#   password hashing   as cheap as it can be
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

# ADAPT 2/4: the schema, built anew when METADATA, a file of SCHEMA_FILES or these lines change.
#   METADATA           of the models
#   SCHEMA_FILES       what else it is made of: migrations, SQL, further models
#   create_schema      makes all of it
#   setup_roles        imported above or defined here: an async function that takes a session and
#                      adds the rows that every test may count on; or None
METADATA = Base.metadata
SCHEMA_FILES: list[Path] = []


def create_schema(connection: sa.Connection) -> None:
    """Create everything that a new, empty database needs."""
    METADATA.create_all(connection)


# ADAPT 3/4: connections.
#   make_engine        create_async_engine; or yours, make_engine(url, **options), in which these
#                      options win over the app's, and which adds the app's event listeners
#   DRIVER             the app's, for when TEST_DATABASE_URL is not set
#   REAL_COMMITS       whether all tests run with real commits
#   ALLOWED            what else tests may connect to: engines of other stores, or names of dialects
make_engine = create_async_engine
DRIVER = "postgresql+asyncpg"
REAL_COMMITS = False
ALLOWED: list[Any] = []


# ADAPT 4/4: requests, and your own fixtures.
#   BASE_URL           where requests seem to go
#   authenticate       what makes a request one of a user
#   fixtures           your actors, and what else your tests use. Redis: a fixture of your own.
#                      A second app: a fixture like `client`, which asks for override_get_db and
#                      resets that app's overrides; its factory is in SESSION_FACTORIES.
#                      A second database becomes part of the test's: its tables in create_schema,
#                      its models in SCHEMA_FILES, its factory in SESSION_FACTORIES.
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
