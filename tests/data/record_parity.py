"""Record abagen's numbers for tests/test_parity.py, to be used where abagen cannot be run.

``python tests/data/record_parity.py`` simulates the data of that test, runs the real abagen on its cases
and writes ``tests/data/abagen_recorded.npz``: regions, genes, chosen probes and counts whole, values of some
genes. To be run again when the simulator or the cases change. The data are simulated: no value is the
Allen Human Brain Atlas's.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ingest.simulate import simulate
from tests import peer
from tests.test_parity import CASES, N_PROBES, N_RECORDED_GENES, RECORDED, SEED


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "published"
        simulate(source, probes=N_PROBES, seed=SEED)
        outcomes = peer.run_peer(CASES, source, Path(scratch) / "peer")
    failed = {name: found.error for name, found in outcomes.items() if found.error}
    if failed:
        raise SystemExit(f"abagen failed: {failed}")
    arrays = {
        f"{name}/{key}": array
        for name, found in outcomes.items()
        for key, array in peer.arrays_of_outcome(found, n_genes=N_RECORDED_GENES).items()
    }
    np.savez_compressed(RECORDED, **arrays)


if __name__ == "__main__":
    main()
