"""Folders that only their user can change, and locks on files that the kernel frees."""

from __future__ import annotations

import io
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

from .project import PREFIX

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FOLDER = "TEST_DATABASE_FOLDER"
USER = 1 if sys.platform == "win32" else os.geteuid()
MEMORY, DISK = "/dev/shm", "~/.cache" if USER else "/var/cache"  # noqa: S108 - own_folder checks it


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
    while True:
        with suppress(BlockingIOError, PermissionError):
            if sys.platform == "win32":  # it cannot share a lock: each takes a byte of its own
                file.seek(secrets.randbelow(2**20) if shared else 0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1 if shared else 2**20)
            else:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return file
        if not wait:
            file.close()
            raise BlockingIOError(f"another run uses {path}")
        time.sleep(0.01)
