"""docs/ml.md: every block is run, and what it shows is what comes back.

``python -m tests.test_learning_docs`` writes what comes back into the page.
"""

import os
from pathlib import Path

import pytest

from tests import test_queries_docs as pages

PAGE = Path(__file__).parents[1] / "docs" / "ml.md"
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
    found = pages.BLOCK.findall(text)
    answers = pages.run_page(text, store_path, tmp_path)
    for (kind, code, shown), answer in zip(found, answers, strict=True):
        if kind in pages.RUN and shown:
            assert answer == pages.tidied(shown), code
    assert sum(kind == "python" for kind, _, _ in found) > 10


def test_every_block_is_run() -> None:
    found = pages.BLOCK.findall(PAGE.read_text())
    assert {kind for kind, _, _ in found} <= {*pages.RUN}
    assert all(shown for kind, _, shown in found if kind == "python" and not shown.isspace())


if __name__ == "__main__":
    os.environ |= QUIET
    pages.PAGE = PAGE
    pages.write_page()
