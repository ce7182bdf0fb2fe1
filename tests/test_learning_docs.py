"""docs/ml.md: every block is run, and what it shows is what comes back.

``python -m tests.test_learning_docs`` writes what comes back into the page.
"""

import os
from pathlib import Path

import pytest

from tests.pages import ROOT, RUN, blocks, check_page, write_page

PAGE = ROOT / "docs" / "ml.md"
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


@pytest.mark.slow
def test_every_block_gives_what_the_page_shows(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch", "anndata", "datasets", "sklearn"):
        pytest.importorskip(module, reason="the page's examples use it; `make test` installs it")
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    text = PAGE.read_text()
    check_page(text, store_path, tmp_path)
    assert sum(kind == "python" for kind, _, _ in blocks(text)) > 10


def test_every_block_is_run() -> None:
    found = blocks(PAGE.read_text())
    assert {kind for kind, _, _ in found} <= {*RUN}
    assert all(shown for kind, _, shown in found if kind == "python" and not shown.isspace())


if __name__ == "__main__":
    os.environ |= QUIET
    write_page(PAGE)
