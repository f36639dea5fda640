"""The pages of the documentation, and what stands in them."""

import re
from pathlib import Path

from guarantees.project import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def text(page: Path) -> str:
    """Return what a page says."""
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return what a page says, without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL)


def words(page: Path) -> int:
    """Return how many words a page has, without its code blocks."""
    return sum(any(map(str.isalnum, each)) for each in prose(page).split())


def links(page: Path) -> list[str]:
    """Return what a page links to, in this repository."""
    found = re.findall(r"\]\(([^)]+)\)", prose(page))
    return [each for each in found if not each.startswith("https://")]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
