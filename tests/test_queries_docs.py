"""docs/queries.md: every block is run, and what it shows is what comes back.

``python -m tests.test_queries_docs`` writes what comes back into the page.
"""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest

from tests.pages import ROOT, RUN, blocks, check_page, run_commands, write_page

PAGE = ROOT / "docs" / "queries.md"
NOT_RUN = ("r", "text", "sh")


@pytest.mark.slow
def test_every_block_gives_what_the_page_shows(store_path: Path, tmp_path: Path) -> None:
    for module in ("duckdb", "polars"):
        pytest.importorskip(module)
    text = PAGE.read_text()
    check_page(text, store_path, tmp_path)
    assert sum(kind in RUN for kind, _, _ in blocks(text)) > 15


def test_every_block_is_run_or_said_not_to_be() -> None:
    text = PAGE.read_text()
    assert {kind for kind, _, _ in blocks(text)} <= {*RUN, *NOT_RUN}
    assert "the R block where R, dplyr\nand tidyr are installed" in text


def test_the_tools_give_the_same_answers() -> None:
    """What the page shows, which is what comes back, is the same ten lines for each."""
    tools = PAGE.read_text().partition("## Ten questions")[2].split("\n### ")[1:]
    shown = {tool.partition("\n")[0]: blocks(tool)[0] for tool in tools}
    assert list(shown) == ["DuckDB", "polars", "pandas", "R"]
    assert len(shown["DuckDB"][2].splitlines()) == 10
    assert shown["DuckDB"][2] == shown["polars"][2] == shown["pandas"][2]
    for _, code, _ in shown.values():
        assert re.findall(r"# (\d+)$", code, re.MULTILINE) == [str(number) for number in range(1, 11)]


# Where arrow is not installed, its one function reads what the test has put there as CSV.
R_STAND_IN = """
library <- function(name) {
  name <- as.character(substitute(name))
  if (name != "arrow" || requireNamespace("arrow", quietly = TRUE)) {
    suppressPackageStartupMessages(base::library(name, character.only = TRUE))
  }
}
if (!requireNamespace("arrow", quietly = TRUE)) {
  open_dataset <- function(path) read.csv(
    paste0(path, ".csv"), check.names = FALSE,
    colClasses = if (basename(path) == "counts") c(donor = "character") else NA
  )
}
questions <- tail(parse("block.R"), 10)
for (line in head(parse("block.R"), -10)) eval(line)
for (number in seq_along(questions)) {
  write.csv(head(as.data.frame(eval(questions[[number]])), 3), paste0(number, ".csv"), row.names = FALSE)
}
"""


def r_is_there() -> bool:
    if shutil.which("Rscript") is None:
        return False
    asked = ["Rscript", "-e", 'quit(status = !all(sapply(c("dplyr", "tidyr"), requireNamespace)))']
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_r_block_gives_what_the_others_give(store_path: Path, tmp_path: Path) -> None:
    if not r_is_there():
        pytest.skip("needs R with dplyr and tidyr")
    text = PAGE.read_text()
    commands = [code for kind, code, _ in blocks(text) if kind == "console" and "ahba run" in code]
    (tmp_path / "ahba.zarr").symlink_to(store_path)
    run_commands(commands[0], tmp_path)
    for name in ("expression", "counts", "regions"):
        frame = ds.dataset(tmp_path / "tables" / name, partitioning="hive").to_table().to_pandas()
        frame.to_csv(tmp_path / "tables" / f"{name}.csv", index=False, na_rep="NA")
    tools = text.partition("## Ten questions")[2].split("\n### ")[1:]
    shown = {tool.partition("\n")[0]: blocks(tool)[0] for tool in tools}
    (tmp_path / "block.R").write_text(shown["R"][1])
    (tmp_path / "stand_in.R").write_text(R_STAND_IN)
    done = subprocess.run(
        ["Rscript", "stand_in.R"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for number, line in enumerate(shown["pandas"][2].splitlines(), start=1):
        answer = pd.read_csv(tmp_path / f"{number}.csv", dtype={"donor": str})
        found = [tuple(row) for row in answer.itertuples(index=False)]
        expected = ast.literal_eval(line)
        assert [row[:-1] for row in found] == [row[:-1] for row in expected], number
        assert [row[-1] for row in found] == pytest.approx([row[-1] for row in expected], abs=6e-4), number


if __name__ == "__main__":
    write_page(PAGE)
