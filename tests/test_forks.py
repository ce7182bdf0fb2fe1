"""A store in a forked process: what was opened before the fork is opened again, and nothing hangs."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys, warnings
import numpy as np
import lake

warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks where there are threads
store = lake.open(sys.argv[1])
everything, lazy = store.everything(), store.microarray()["expression"]
asked = {
    "opened before": everything.read,
    "opened after": lambda: lake.open(sys.argv[1]).everything().read(),
    "lazily, opened before": lambda: lazy.values,
    "columns": lambda: np.asarray(store.samples["mni_x"]),
    "a run": lambda: lake.expression(store, sys.argv[2], ibf_threshold=0).to_numpy(),
}
expected = {name: ask() for name, ask in asked.items()}
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # what hangs ends so
for name, ask in asked.items():
    np.testing.assert_array_equal(ask(), expected[name], err_msg=name)
"""


def test_a_forked_process_reads(store_path: Path, atlas_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, store_path, atlas_file],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
