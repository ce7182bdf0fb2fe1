"""What the tests of the simulator know of its donors."""

from pathlib import Path

import pandas as pd

N_PROBES = 400
N_SAMPLES = {"9861": 946, "10021": 893, "12876": 363, "14380": 529, "15496": 470, "15697": 501}


def matrix(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name, header=None, index_col=0)
