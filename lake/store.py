"""The store: donors' expression as labelled, lazy arrays, opened at one snapshot."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ingest.sources import donor_order
from lake.arrays import CheckedMatrix, as_objects, damage_named, open_matrix, read_columns, read_table
from lake.errors import NoStoreError, RequestError
from lake.layout import (
    DONORS,
    MATRICES,
    ONTOLOGY,
    PROBES,
    RNASEQ_GENES,
    RNASEQ_MATRICES,
    RNASEQ_SAMPLES,
    SAMPLES,
    shard_rows,
)
from lake.manifest import DonorEntry, Manifest, load_manifest
from lake.rows import RowReader

if TYPE_CHECKING:  # loaded where they are used: one gene is asked for in less time than they load
    import dask.array as da
    import pandas as pd
    import xarray as xr

    from lake.names import Genes
    from lake.runs import AtlasLike
    from lake.selection import Selection


class Lake:
    """A store of AHBA data at one snapshot; see `lake.open`.

    Parameters
    ----------
    path : str or pathlib.Path
        A directory, or a URL that fsspec understands (``s3://..``), opened read-only.

    Raises
    ------
    StoreError
        If there is no store there, or none that this version reads.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        # Absolute, as workers elsewhere are in other directories.
        self._local = Path(path).absolute() if "://" not in self.path else None
        if self._local is not None and not self._local.is_dir():
            raise NoStoreError(f"{path}: there is no store; `ahba ingest DIR --store {path}` makes one.")
        if self._local is not None and not (self._local / "zarr.json").is_file():
            raise NoStoreError(
                f"{path}: no donor is in this store yet; `ahba ingest DIR --store {path}` puts them in."
            )
        with damage_named(self.path):
            self._root = zarr.open_group(
                str(self._local or self.path), mode="r", zarr_format=3, use_consolidated=False
            )
        self.manifest: Manifest = load_manifest(self._root)
        self.rows = RowReader(self._root, self.path)
        self._columns: dict[str, NDArray[Any]] = {}

    def __repr__(self) -> str:
        kind = "simulated" if self.simulated else "AHBA"
        return f"<Lake {self.path}: {kind}, donors {', '.join(self.donors)}, snapshot {self.snapshot}>"

    @property
    def snapshot(self) -> str:
        """Hash of everything the store holds; tables and runs record it."""
        return self.manifest.snapshot

    @property
    def simulated(self) -> bool:
        """Whether the data is made up by ``ahba simulate``."""
        return self.manifest.simulated

    @property
    def donors(self) -> list[str]:
        """Donor numbers, ascending."""
        return sorted(self.manifest.donors, key=donor_order)

    def resolve_donors(self, donors: str | Sequence[str] = "all") -> list[str]:
        """Donor numbers from numbers or uids, each once, ascending.

        Raises
        ------
        RequestError
            If one of them is not in the store.
        """
        if isinstance(donors, str):
            donors = self.donors if donors == "all" else [donors]
        chosen = {str(donor) for donor in donors}
        if chosen - set(self.donors):
            uids = dict(zip(self.donor_table["uid"], self.donor_table["donor"], strict=True))
            chosen = {uids.get(donor, donor) for donor in chosen}
        if unknown := sorted(chosen - set(self.donors)):
            raise RequestError(
                f"Donor {', '.join(unknown)} is not in the store; it holds {', '.join(self.donors)}."
            )
        if not chosen:
            raise RequestError(f"No donor is chosen; the store holds {', '.join(self.donors)}.")
        return sorted(chosen, key=donor_order)

    @cached_property
    def donor_table(self) -> "pd.DataFrame":
        """Published facts on the donors: donor, uid, age, sex, ethnicity."""
        return read_table(self._group("donors"), DONORS)

    @cached_property
    def probes(self) -> "pd.DataFrame":
        """All probes, sorted by gene; the index is the position on the ``probe`` axis."""
        return _table(self.probe_columns([variable.name for variable in PROBES]))

    @cached_property
    def ontology(self) -> "pd.DataFrame":
        """All structures, in published order."""
        return read_table(self._group("ontology"), ONTOLOGY)

    @cached_property
    def samples(self) -> "pd.DataFrame":
        """All samples, donor after donor; the index is the position on the ``sample`` axis."""
        return _table(self.sample_columns(["donor", *(variable.name for variable in SAMPLES)]))

    @cached_property
    def sample_counts(self) -> dict[str, int]:
        """Samples of each donor, donors ascending: the parts of the ``sample`` axis."""
        return {donor: self.manifest.donors[donor].n_samples for donor in self.donors}

    def probe_columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Some columns of `probes` as arrays; no other is read.

        Raises
        ------
        StoreError
            If one of them is missing or damaged.
        """
        return dict(zip(names, self._read_columns([f"probes/{name}" for name in names]), strict=True))

    def sample_columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Some columns of `samples` as arrays; no other is read.

        Raises
        ------
        StoreError
            If one of them is missing or damaged.
        """
        stored = [name for name in names if name != "donor"]
        groups = [self.manifest.donors[donor].group for donor in self.donors]
        self._read_columns([f"{group}/{name}" for name in stored for group in groups])
        donor = np.repeat(
            np.array(self.donors, dtype=np.dtypes.StringDType()), [*self.sample_counts.values()]
        )
        return {
            name: np.concatenate(self._read_columns([f"{group}/{name}" for group in groups]))
            if name in stored
            else donor
            for name in names
        }

    def _read_columns(self, paths: list[str]) -> list[NDArray[Any]]:
        """Columns by their place in the store, each read once."""
        new = [path for path in dict.fromkeys(paths) if path not in self._columns]
        if new:
            self._columns |= zip(new, read_columns(self._root, new), strict=True)
        return [self._columns[path] for path in paths]

    def microarray(self) -> "xr.Dataset":
        """Open all donors as one lazy dataset.

        Returns
        -------
        xarray.Dataset
            ``expression`` (probe, sample) float64, log2 intensity, and ``detected`` (probe, sample)
            bool, as dask arrays whose chunks end where donors end; every column of `probes` and
            `samples` is a coordinate.

        Raises
        ------
        StoreError
            If a file of the store is missing.
        """
        coordinates = {name: ("probe", column.to_numpy()) for name, column in self.probes.items()}
        coordinates |= {name: ("sample", column.to_numpy()) for name, column in self.samples.items()}
        return self.unlabelled().assign_coords(coordinates)

    def unlabelled(self) -> "xr.Dataset":
        """The matrices of `microarray` by position only, in a third of the time; nothing else is read.

        Raises
        ------
        StoreError
            If a file of the store is missing.
        """
        import xarray as xr

        variables = {v.name: (v.dims, self._matrix(v.name), {"long_name": v.doc}) for v in MATRICES}
        return xr.Dataset(variables, attrs=self.manifest.provenance())

    @property
    def rnaseq_donors(self) -> list[str]:
        """Donors whose RNA-seq is in the store, ascending."""
        return sorted(self.manifest.rnaseq, key=donor_order)

    def rnaseq(self, donor: str) -> "xr.Dataset":
        """Open the RNA-seq of one donor.

        Parameters
        ----------
        donor : str
            Donor number or uid.

        Returns
        -------
        xarray.Dataset
            ``tpm`` (gene, sample) float64, transcripts per million, and ``counts`` (gene, sample) float64,
            as dask arrays. Genes are sorted by symbol and found by it: ``.sel(gene="SST")``. Every column of
            Genes.csv and SampleAnnot.csv is a coordinate, see `lake.layout.RNASEQ_SAMPLES`; ``well_id`` is
            the microarray's, and several samples have the same where a well was sequenced twice.

        Raises
        ------
        RequestError
            If the store has no RNA-seq of this donor.
        StoreError
            If a file of the store is missing.
        """
        import xarray as xr

        (number,) = self.resolve_donors([donor])
        if number not in self.manifest.rnaseq:
            raise RequestError(
                f"The store has no RNA-seq of donor {donor} (it has that of "
                f"{', '.join(self.rnaseq_donors) or 'none'}); published is that of 9861 and 10021, and "
                "`ahba fetch DIR --what rnaseq`, then `ahba ingest`, bring it."
            )
        entry = self.manifest.rnaseq[number]
        group = self._group(entry.group)
        genes, samples = read_table(group, RNASEQ_GENES), read_table(group, RNASEQ_SAMPLES)
        coordinates = {name: ("gene", column.to_numpy()) for name, column in genes.items()}
        coordinates |= {name: ("sample", column.to_numpy()) for name, column in samples.items()}
        coordinates["gene"] = ("gene", genes["gene_symbol"].to_numpy())
        variables = {
            v.name: (v.dims, self._donor_matrix(entry, v.name), {"long_name": v.doc, "units": v.unit})
            for v in RNASEQ_MATRICES
        }
        return xr.Dataset(variables, coordinates, {"donor": number, **self.manifest.provenance()})

    def rnaseq_profiles(self, donors: str | Sequence[str] = "all") -> "dict[str, pd.DataFrame]":
        """Mean TPM of every gene in every structure, of each of the donors that has RNA-seq.

        Parameters
        ----------
        donors : "all" or sequence of str
            Donor numbers or uids; those without RNA-seq are left out.

        Returns
        -------
        dict of str to pandas.DataFrame
            Donor -> gene_symbol x structure_id: mean over all samples of the structure, replicates counting
            as samples (abagen's rule). Constant genes are in it.
        """
        chosen = [donor for donor in self.resolve_donors(donors) if donor in self.manifest.rnaseq]
        return {donor: _structure_means(self.rnaseq(donor)) for donor in chosen}

    # ---- questions; see lake/queries.py, places.py, comparison.py and correlation.py ----

    def everything(self) -> "Selection":
        """All probes in all samples, to choose from; nothing is read."""
        from lake.selection import everything

        return everything(self)

    def gene(self, genes: "Genes", **options: Any) -> "Selection":
        """Probes of genes in all samples, by symbol, Entrez id or probe id: `lake.queries.gene`."""
        from lake.queries import gene

        return gene(self, genes, **options)

    def near(self, point: Sequence[float], **options: Any) -> "Selection":
        """Samples around a coordinate, ``radius=`` mm or ``k=`` of them: `lake.places.near`."""
        from lake.places import near

        return near(self, point, **options)

    def structure(self, name: str | int, **options: Any) -> "Selection":
        """Samples of a structure of the ontology, by acronym, name or id: `lake.places.structure`."""
        from lake.places import structure

        return structure(self, name, **options)

    def in_atlas(self, atlas: "AtlasLike", regions: Any = None, **options: Any) -> "Selection":
        """Samples in regions of an atlas: `lake.places.in_atlas`."""
        from lake.places import in_atlas

        return in_atlas(self, atlas, regions, **options)

    def in_mask(self, mask: "AtlasLike", **options: Any) -> "Selection":
        """Samples inside a mask: `lake.places.in_mask`."""
        from lake.places import in_mask

        return in_mask(self, mask, **options)

    def compare(self, a: "Selection", b: "Selection", **options: Any) -> "pd.DataFrame":
        """Every probe or gene in one set of samples against another: `lake.comparison.compare`."""
        from lake.comparison import compare

        return compare(a, b, **options)

    def correlated(self, gene: "Genes", **options: Any) -> "pd.DataFrame":
        """Every probe or gene, those most like one gene first: `lake.correlation.correlated`."""
        from lake.correlation import correlated

        return correlated(self, gene, **options)

    def _matrix(self, name: str) -> "da.Array":
        import dask.array as da

        matrices = [self._donor_matrix(self.manifest.donors[donor], name) for donor in self.donors]
        joined: da.Array = da.concatenate(matrices, axis=1)
        return joined

    def _donor_matrix(self, entry: DonorEntry, name: str) -> "da.Array":
        import dask.array as da

        where = f"{self.path}/{entry.group}/{name}"
        with damage_named(where):
            stored = open_matrix(self._group(entry.group), name)
        array = CheckedMatrix(stored, where, self._local / entry.group / name if self._local else None)
        array.refuse_missing()
        rows = shard_rows(entry.n_samples) * (8 // array.dtype.itemsize)  # as many bytes of either
        # The name makes equal reads equal tasks, and stays the same between processes.
        token = f"{self.snapshot}-{entry.group}-{name}"
        lazy: da.Array = da.from_array(
            array,
            chunks=(rows, -1),
            name=f"read-{token}",
            inline_array=True,
            meta=np.empty((0, 0), array.dtype),  # or Dask would read to find out
        )
        return lazy

    def _group(self, path: str) -> zarr.Group:
        with damage_named(f"{self.path}/{path}"):
            group = self._root[path]
        assert isinstance(group, zarr.Group)  # noqa: S101 - narrows the type
        return group


def _table(columns: dict[str, NDArray[Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame({name: as_objects(values) for name, values in columns.items()})


def _structure_means(rnaseq: "xr.Dataset") -> "pd.DataFrame":
    import pandas as pd

    genes = pd.Index(rnaseq["gene_symbol"].to_numpy(), name="gene_symbol")
    structures = pd.Series(rnaseq["structure_id"].to_numpy(), name="structure_id")
    return pd.DataFrame(rnaseq["tpm"].to_numpy().T, columns=genes).groupby(structures).mean().T
