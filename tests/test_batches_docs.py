"""docs/batches.md: blocks are run, and what they show is what comes back; its tables are the code's.

``python -m tests.test_batches_docs`` writes what comes back into the page.
"""

import ast
import re
from pathlib import Path

import pytest

from benchmarks.batch_model import grid_counts
from lake.batch_file import read_batch
from lake.grids import MULTIVERSE
from lake.journal import read_journal
from lake.plan import KINDS
from lake.resources import BASE_BYTES, WORKER_BYTES
from tests.pages import ROOT, RUN, blocks, check_page, write_page

PAGE = ROOT / "docs" / "batches.md"
NAMED = re.compile(r"`(\w+\.toml)`:\n\n```toml\n(.*?)```", re.DOTALL)
NOT_RUN = ("toml", "sh", "text", "py")


def write_batch_files(text: str, directory: Path) -> None:
    """The batch files that the page names."""
    for name, content in NAMED.findall(text):
        (directory / name).write_text(content)


def section(heading: str) -> str:
    """The part of the page below a heading."""
    return PAGE.read_text().partition(f"\n### {heading}\n")[2].partition("\n#")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table's rows, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.slow
def test_every_block_gives_what_the_page_shows(store_path: Path, tmp_path: Path) -> None:
    text = PAGE.read_text()
    write_batch_files(text, tmp_path)
    check_page(text, store_path, tmp_path)
    named = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(section("run.json"))))
    assert named == list(read_journal(tmp_path / "tables"))


def test_every_block_is_run_or_known_not_to_be() -> None:
    found = blocks(PAGE.read_text())
    assert {kind for kind, _, _ in found} <= {*RUN, *NOT_RUN}
    assert sum(kind in RUN for kind, _, _ in found) >= 5


def test_blocks_that_are_not_run_are_python() -> None:
    codes = [code for kind, code, _ in blocks(PAGE.read_text()) if kind == "py"]
    assert codes
    for code in codes:
        ast.parse(code)


def test_batch_files_are_read(tmp_path: Path) -> None:
    """Those that are whole; the others are parts of one."""
    whole = [code for kind, code, _ in blocks(PAGE.read_text()) if kind == "toml" and "store =" in code]
    assert len(whole) == 2
    for code in whole:
        (tmp_path / "batch.toml").write_text(code)
        assert len(read_batch(tmp_path / "batch.toml").pipelines) > 1


def test_the_stages_of_the_multiverse_are_counted() -> None:
    shown = {row[0]: (row[2], int(row[3].replace(",", ""))) for row in rows(section("What is shared"))}
    assert {kind: count for kind, (_, count) in shown.items()} == grid_counts(MULTIVERSE, atlases=2)
    assert {kind: needs for kind, (needs, _) in shown.items()} == {
        kind: ", ".join(stage.needs) for kind, stage in KINDS.items()
    }


def test_the_least_memory_is_told() -> None:
    assert f"the least is {BASE_BYTES + WORKER_BYTES >> 20} MiB" in section("Memory")


if __name__ == "__main__":
    write_page(PAGE, write_batch_files)
