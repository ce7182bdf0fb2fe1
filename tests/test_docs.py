"""The documentation says what the code does."""

import re
from pathlib import Path

import pytest

from lake.layout import describe
from transforms.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def test_store_page_is_generated_from_the_layout() -> None:
    assert (ROOT / "docs" / "store.md").read_text() == describe(), (
        "see the page's last line on how to write it"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_choice_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "choices.md").read_text()
    rows = {
        name: line
        for line in page.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    missing = [name for name in Pipeline().parameters() if name not in rows]
    assert not missing
