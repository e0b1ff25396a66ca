# SPDX-License-Identifier: Apache-2.0
"""README, CONTRIBUTING and docs/: what they name exists, each page is reached, and their figures agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
README, CONTRIBUTING, PERFORMANCE = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "performance.md"
PAGES = [README, CONTRIBUTING, *DOCS]
ROOMS = {path.parent.name for path in (ROOT / "vlad_ros").glob("*/__init__.py")}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """The files and headings that a page's relative links lead to."""
    found = [target.partition("#") for target in LINK.findall(page.read_text()) if "://" not in target]
    return [((page.parent / file).resolve() if file else page, heading) for file, _, heading in found]


def headings(page: Path) -> set[str]:
    """The anchors that a Markdown page offers, as GitHub makes them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def table(page: Path, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is called `first`, by column."""
    lines = page.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next((i for i in range(at, len(lines)) if not lines[i].startswith("|")), len(lines))
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[at:end]]
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for file, heading in links(page):
        assert file.exists(), file
        assert not heading or heading in headings(file), f"{file}#{heading}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.read_text().splitlines()) <= 200
    assert {CONTRIBUTING, *DOCS} <= {file for file, _ in links(README)}


def test_contributing_names_files_and_rooms_that_exist() -> None:
    named = re.findall(r"`([\w./]+\.(?:py|md|rst|toml|yaml|safetensors))`", CONTRIBUTING.read_text())
    assert len(named) > 15
    known = [path for folder in ("vlad_ros", "test") for path in (ROOT / folder).rglob("*.py")]
    for name in named:
        assert (ROOT / name).is_file() or name in {path.name for path in known}, name
    rooms = " ".join(row["room"] for row in table(CONTRIBUTING, "room"))
    assert all(f"`{room}/`" in rooms for room in ROOMS)


def test_the_map_of_the_house_leads_into_every_room() -> None:
    rows = table(CONTRIBUTING, "question")
    files = [(ROOT / target).relative_to(ROOT / "vlad_ros") for row in rows for target in LINK.findall(row["answer"])]
    assert len(set(files)) == len(rows) == 21
    assert all(row["question"].endswith("?") for row in rows)
    assert {file.parts[0] for file in files} >= ROOMS - {"commands"}  # whose door is cli.py


def test_the_readme_says_of_the_latency_what_its_page_says() -> None:
    assert table(README, "view") == table(PERFORMANCE, "view")


def without_brackets(text: str) -> str:
    return re.sub(r" \(.*?\)", "", text)


@pytest.mark.parametrize(
    ("page", "columns"),
    [("recognition.md", ("recall@1, single scans", "local maps", "Scan Context")), ("edges.md", ("closed", "wrong"))],
)
def test_the_readme_says_of_drives_what_their_pages_say(page: str, columns: tuple[str, ...]) -> None:
    lines = [without_brackets(line) for line in (ROOT / "docs" / page).read_text().splitlines()]
    for row in table(README, "drive"):
        if any(row[name] for name in columns):
            drive = ", ".join(without_brackets(row["drive"]).split(", ")[:2])
            assert any(
                line.startswith(f"| {drive}") and all(row[name] in line for name in columns) for line in lines
            ), row
