"""Pages of docs/ whose blocks are run: what they show is what comes back.

``python -m tests.test_queries_docs``, and likewise for the other pages, writes what comes back into the page.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ingest.simulate import simulate
from lake.ingestion import ingest_directory
from tests.helpers import DONORS

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n(?:\n?```text\n(.*?)```\n)?", re.DOTALL)
RUN = ("console", "python")
NEXT = "~~~~ next block"
Prepare = Callable[[str, Path], None]


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Kind, code and what is shown of every block."""
    return [tuple(found) for found in BLOCK.findall(text)]


def run(arguments: list[str], directory: Path) -> str:
    """What a process says, on a narrow terminal in a directory."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


def run_commands(code: str, directory: Path) -> str:
    lines = [shlex.split(line.removeprefix("$ ")) for line in code.replace("\\\n", " ").splitlines()]
    assert {words[0] for words in lines} == {"ahba"}
    return "".join(run(["-c", "from lake.cli import main; main()", *words[1:]], directory) for words in lines)


def run_blocks(text: str, store: Path, directory: Path) -> list[str]:
    """What comes back from each block, the commands first; "" of those that are not run."""
    (directory / "ahba.zarr").symlink_to(store)
    found = blocks(text)
    answers = [run_commands(code, directory) if kind == "console" else "" for kind, code, _ in found]
    python = [place for place, (kind, _, _) in enumerate(found) if kind == "python"]
    script = f"print({NEXT!r})\n".join(found[place][1] for place in python)
    parts = run(["-W", "ignore", "-c", script], directory).split(f"{NEXT}\n")
    for place, part in zip(python, parts, strict=True):
        answers[place] = part
    return [tidied(answer) for answer in answers]


def tidied(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())


def check_page(text: str, store: Path, directory: Path) -> None:
    """Every block that shows something gives it."""
    for (kind, code, shown), answer in zip(blocks(text), run_blocks(text, store, directory), strict=True):
        if shown and kind in RUN:
            assert answer == tidied(shown), code


def write_page(page: Path, prepare: Prepare | None = None) -> None:
    """Put what comes back below every block that shows something; `prepare` fills the folder first."""
    text = page.read_text()
    with tempfile.TemporaryDirectory() as folder:
        files, store = Path(folder) / "files", Path(folder) / "small.zarr"
        simulate(files, probes=400, donors=list(DONORS), samples_scale=0.1)
        ingest_directory(files, store)
        if prepare is not None:
            prepare(text, Path(folder))
        answers = iter(run_blocks(text, store, Path(folder)))

    def rewritten(found: re.Match[str]) -> str:
        answer = next(answers)
        if found[1] not in RUN or found[3] is None:
            return found[0]
        return f"```{found[1]}\n{found[2]}```\n\n```text\n{answer}```\n"

    page.write_text(BLOCK.sub(rewritten, text))
