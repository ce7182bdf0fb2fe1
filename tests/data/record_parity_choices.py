"""Record abagen's part of tests/test_parity_choices.py, to be used where abagen cannot be run.

``python tests/data/record_parity_choices.py`` simulates the data of that test, runs the real abagen on its
combinations (minutes) and writes ``tests/data/abagen_choices.npz``: of each combination hashes of regions,
genes, counts, chosen probes and the samples' regions, and the values of some genes. To be run again when the
simulator or the choices change. The data are simulated: no value is the Allen Human Brain Atlas's.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ingest.simulate import simulate
from tests import peer
from tests.parity_cases import N_PROBES, RECORDED, SAMPLES_SCALE, SEED, cases, write_records


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "published"
        simulate(source, probes=N_PROBES, samples_scale=SAMPLES_SCALE, seed=SEED, rnaseq=True)
        outcomes = peer.run_peer(cases(), source, Path(scratch) / "peer")
    failed = {name: found.error for name, found in outcomes.items() if found.error}
    if failed:
        raise SystemExit(f"abagen failed: {failed}")
    write_records(outcomes, RECORDED)


if __name__ == "__main__":
    main()
