"""RNA-seq as the probe selections compare it with the microarray: by structure or by well."""

from collections.abc import Callable

import pandas as pd
import xarray as xr

from lake.store import Lake


def rnaseq_profiles(store: Lake, *, by: str) -> dict[str, pd.DataFrame]:
    """Mean TPM of every gene, of each donor that has RNA-seq.

    Parameters
    ----------
    store : Lake
    by : {"structure", "well"}
        ``structure``: gene_symbol x structure_id, as abagen compares; ``well``: Entrez id x well_id, as
        AHBAprocessing does. Replicates of a well count as samples of their structure, or are averaged.

    Returns
    -------
    dict of str to pandas.DataFrame
        By donor number; empty if no donor has RNA-seq.
    """
    return PROFILES[by](store)


def _by_structure(store: Lake) -> dict[str, pd.DataFrame]:
    return store.rnaseq_profiles()


def _by_well(store: Lake) -> dict[str, pd.DataFrame]:
    return {donor: _well_means(store.rnaseq(donor)) for donor in store.rnaseq_donors}


def _well_means(rnaseq: xr.Dataset) -> pd.DataFrame:
    """Entrez id x well, for genes with an id; of several with the same, the first in the published order."""
    genes = pd.DataFrame({name: rnaseq[name].to_numpy() for name in ("entrez_id", "published_row")})
    first = genes[genes["entrez_id"] >= 0].sort_values("published_row").drop_duplicates("entrez_id")
    wells = pd.Series(rnaseq["well_id"].to_numpy(), name="well_id")
    ids = pd.Index(first["entrez_id"], name="entrez_id")
    tpm = rnaseq["tpm"].isel(gene=first.index.to_numpy()).to_numpy()
    return pd.DataFrame(tpm.T, columns=ids).groupby(wells).mean().T


PROFILES: dict[str, Callable[[Lake], dict[str, pd.DataFrame]]] = {
    "structure": _by_structure,
    "well": _by_well,
}
