"""A comparison or a profile that cannot go on says why, whole, and leaves nothing behind."""

import re
import signal
import subprocess
import time
from collections.abc import Iterable

import pytest

from guarantees.project import HERE
from guarantees.repository import Repository


@pytest.mark.parametrize(
    ("first_line", "options", "reason"),
    [
        pytest.param(
            "import nothing_like_it", (), "No module named 'nothing_like_it'", id="import"
        ),
        pytest.param("", ("--no-such-option",), "unrecognized arguments: --no-such", id="usage"),
        pytest.param("", ("-k", "nothing_like_it"), "deselected", id="no tests"),
    ],
)
def test_a_run_that_cannot_start_is_told_before_anything_has_run(
    repository: Repository, first_line: str, options: Iterable[str], reason: str
) -> None:
    slow = f"import time\n{first_line}\ndef test_slow(): time.sleep(3600)\n"
    repository.commit({"tests/test_slow.py": slow}, "broken")
    repository.write({"new.txt": ""})

    result = repository.compare("--before", "broken", "--", *options)

    assert result.returncode == 1
    assert "before cannot start, pytest ended with exit code " in result.stdout
    assert " -m pytest " in result.stdout
    assert reason in result.stdout
    assert "those that passed" not in result.stdout


def test_what_keeps_many_files_from_being_collected_is_told_whole(repository: Repository) -> None:
    message = "no settings, and this is a message that is longer than a line of a terminal is wide"
    files = {f"tests/test_{number}.py": "import settings" for number in range(30)}
    settings = {"settings.py": f"raise RuntimeError({message!r})"}
    repository.commit({**files, **settings, "pytest.ini": "[pytest]\npythonpath = .\n"}, "broken")

    result = repository.compare("--before", "before", "--after", "broken")

    assert result.returncode == 1
    assert f"E   RuntimeError: {message}\n" in result.stdout


def test_a_side_that_passes_nothing_ends_the_comparison(repository: Repository) -> None:
    message = f"no server\\n{'and what to do about it ' * 8}\\nline 3"
    fails = "import pytest\n@pytest.fixture(autouse=True)\ndef side(): "
    fails += f'raise OSError("{message}")\n'
    repository.commit({"tests/conftest.py": fails}, "fails")

    result = repository.compare("--before", "before", "--after", "fails")

    assert result.returncode == 1
    assert "after has passed no test, pytest ended with exit code 1" in result.stdout
    whole = f"OSError: no server\n{'and what to do about it ' * 8}\nline 3\n"
    assert whole in result.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_cleans_up(repository: Repository, sent: signal.Signals) -> None:
    repository.environment["MARKS"] = str(repository.path.parent)
    waits = """
import os, pathlib, pytest, time
@pytest.fixture
def server():
    mark = pathlib.Path(os.environ["MARKS"], "running")
    yield mark
    mark.rename(mark.with_name("torn down"))

def test_waits(server):
    server.touch()
    time.sleep(3600)
"""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where a shell has it ignored
    repository.commit({"tests/test_waits.py": waits}, "waits")
    repository.write({"new.txt": ""})
    before = repository.state()
    arguments = (repository.path, "--python", repository.python, "--before", "waits")
    process = subprocess.Popen(  # noqa: S603 - our own command
        repository.command("compare", *arguments),
        cwd=HERE.parent,
        env=repository.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (repository.path.parent / "running").exists():
        assert process.poll() is None
        time.sleep(0.05)

    process.send_signal(sent)
    printed, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Interrupted" in printed
    assert (repository.path.parent / "torn down").exists()
    assert repository.state() == before


def test_a_profile_leaves_nothing_and_needs_nothing(repository: Repository) -> None:
    result = repository.run("profile", "--", "tests/nested")

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"tests +│ +1 │", result.stdout), result.stdout


def test_a_profile_that_cannot_start_says_why(repository: Repository) -> None:
    result = repository.run("profile", "--", "nowhere")

    assert result.returncode == 1
    assert "file or directory not found: nowhere" in result.stdout
