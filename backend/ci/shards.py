"""Merges the reports of all shards, and refuses all but the whole suite, each test once.

`make merge-shards` runs it. What the whole suite is comes from a collection of its own, because a
shard that never reported would be missed by nobody.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, TestCase

Name = tuple[str, str]  # as JUnit has it: the module with the class, and the test


def junit_name(node_id: str) -> Name:
    """Return the name under which pytest reports a test; its parameters may hold any character."""
    path, bracket, parameters = node_id.partition("[")
    module, *names = path.split("::")
    dotted = module.removesuffix(".py").replace("/", ".")
    return ".".join([dotted, *names[:-1]]), f"{names[-1]}{bracket}{parameters}"


def collected(tests: str) -> set[Name]:
    """Return the names of all tests."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", tests]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        sys.exit(f"The tests cannot be collected:\n{done.stdout}{done.stderr}")
    return {junit_name(line) for line in done.stdout.splitlines() if "::" in line}


def problems(wanted: set[Name], cases: Iterable[TestCase]) -> list[str]:
    """Return a line for each test that did not run, ran more than once, is unknown or failed."""
    ran = Counter((case.classname, case.name) for case in cases)
    failed = {
        (case.classname, case.name)
        for case in cases
        if any(isinstance(result, Error | Failure) for result in case.result)
    }
    found = {
        "did not run": wanted - ran.keys(),
        "is not in the suite": ran.keys() - wanted,
        "ran more than once": {name for name, times in ran.items() if times > 1},
        "failed": failed,
    }
    return [f"{'::'.join(name)} {what}" for what, names in found.items() for name in sorted(names)]


def main(folder: Path, tests: str) -> int:
    """Write the merged report; return 0 only if the shards make up the suite, and all passed."""
    reports = sorted(folder.glob("shard-*.xml"))
    merged = JUnitXml()
    for report in reports:
        merged += JUnitXml.fromfile(str(report))
    merged.write(str(folder / "all.xml"))
    cases = [case for suite in merged for case in suite]
    wanted = collected(tests)
    found = problems(wanted, cases)
    for line in found:
        print(line, file=sys.stderr)
    shards = ", ".join(report.stem for report in reports) or "none"
    print(f"{len(cases)} of {len(wanted)} tests ran, {len(found)} problems. Reports: {shards}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
