"""What a question selects of the lake: some probes (or genes) in some samples, read when it is looked at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lake.errors import RequestError
from lake.names import Genes, resolve
from lake.rows import Integers, Positions, Request, by_donor

if TYPE_CHECKING:  # loaded where they are used: one gene is asked for in less time than they load
    import pandas as pd
    import xarray as xr

    from lake.store import Lake
    from transforms.pipeline import Pipeline
    from transforms.probes import ProbeSelection

Floats = NDArray[np.float64]
Axis = Literal["sample", "probe"]

# Probes in memory at once: 1,024 in all 3,702 samples are 30 MB.
BLOCK = 1024
ROWS_AT_ONCE, FEW_SAMPLES = 8192, 256  # so many rows of few samples are no more to hold, and fewer reads


@dataclass(frozen=True, eq=False)
class Selection:
    """Probes x samples, not read yet; made by `Lake.gene`, `Lake.near`, `Lake.structure`, ..

    Attributes
    ----------
    store : Lake
    question : str
        What was asked.
    columns : (sample,) int array
        Positions on the ``sample`` axis of the store, in the order of the answer.
    rows : (probe,) int array or None
        Positions on the ``probe`` axis; None for all probes.
    labels : mapping of str to array
        What the question knows of the samples besides the store: ``distance``, ``region``.
    notes : tuple of str
        What the person should know of how the question was understood.
    choice : ProbeSelection or None
        The probes that stand for each gene, after `per_gene`.
    """

    store: "Lake" = field(repr=False)
    question: str
    columns: Integers = field(repr=False)
    rows: Integers | None = field(default=None, repr=False)
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    choice: "ProbeSelection | None" = field(default=None, repr=False)

    def __repr__(self) -> str:
        n_rows, n_columns = self.shape
        said = "".join(f"\n  {note}" for note in self.notes)
        return (
            f"<Selection {self.question}: {counted(n_rows, self.dim)} x {counted(n_columns, 'sample')} of "
            f"{counted(len(self.donors), 'donor')}>{said}"
        )

    @property
    def dim(self) -> str:
        """Name of the first axis: ``probe``, or ``gene`` after `per_gene`."""
        return "probe" if self.choice is None else "gene"

    @property
    def shape(self) -> tuple[int, int]:
        """Probes (or genes) and samples."""
        if self.choice is not None:
            return len(self.choice.genes), len(self.columns)
        return self.store.manifest.n_probes if self.rows is None else len(self.rows), len(self.columns)

    @cached_property
    def donors(self) -> list[str]:
        """Donors with a sample in the selection, ascending."""
        return list(self.parts)

    @cached_property
    def parts(self) -> dict[str, tuple[Positions, Positions]]:
        """Donor -> where its samples are in the selection, and their positions among the donor's samples."""
        return by_donor(self.columns, self.store.sample_counts)

    # ---- narrowing ----

    def genes(self, genes: Genes, *, reannotated: bool = True) -> "Selection":
        """The same samples, of these genes only.

        Parameters
        ----------
        genes : str, int, or sequence of them
            See `lake.names.resolve`.
        reannotated : bool
            Whose symbols: the re-annotation's, or those published.

        Raises
        ------
        RequestError
            If a gene is unknown, or the selection is one of genes or does not have its probes.
        """
        if self.choice is not None:
            raise RequestError("Choose the genes first, then one value for each: .genes(..).per_gene(..).")
        found = resolve(self.store, genes, reannotated=reannotated)
        rows = found.rows if self.rows is None else found.rows[np.isin(found.rows, self.rows)]
        if not len(rows):
            raise RequestError(f"{self.question} has no probe of {named(genes)}.")
        question = f"{named(genes)} in {self.question}"
        return replace(self, question=question, rows=rows, notes=(*self.notes, *found.notes))

    def of_donors(self, donors: str | Sequence[str]) -> "Selection":
        """The same, of these donors' samples only.

        Raises
        ------
        RequestError
            If a donor is not in the store, or no sample is left.
        """
        chosen = self.store.resolve_donors(donors)
        donor = self.store.sample_columns(["donor"])["donor"][self.columns]
        kept = np.isin(donor, np.array(chosen, dtype=donor.dtype))
        return self.where(kept, f"{self.question}, donor {', '.join(chosen)}")

    def others(self, donors: str | Sequence[str] = "all") -> "Selection":
        """The same probes in all samples that are not in the selection, of these donors.

        Raises
        ------
        RequestError
            If a donor is not in the store, or no sample is left.
        """
        rest = np.setdiff1d(np.arange(sum(self.store.sample_counts.values())), self.columns)
        if not len(rest):
            raise RequestError(f"{self.question} has all samples: there are no others.")
        others = replace(self, question="all other samples", columns=rest, labels={})
        return others if isinstance(donors, str) and donors == "all" else others.of_donors(donors)

    def where(self, kept: NDArray[np.bool_], question: str) -> "Selection":
        """The same, of some of its samples.

        Parameters
        ----------
        kept : (sample,) bool array
        question : str
            What the result is an answer to.

        Raises
        ------
        RequestError
            If no sample is left.
        """
        if not kept.any():
            raise RequestError(f"{question}: no sample is left.")
        labels = {name: values[kept] for name, values in self.labels.items()}
        return replace(self, question=question, columns=self.columns[kept], labels=labels)

    def per_gene(self, pipeline: "Pipeline | None" = None, **choices: Any) -> "Selection":
        """One value a gene, by a pipeline's choice of probes; the values are as published, not normalised.

        The choice is that of a run: all samples of the pipeline's donors take part in it, whichever the
        selection has. Which of a gene's probes compete is given by the selection.

        Parameters
        ----------
        pipeline : Pipeline, optional
        **choices
            Fields of `Pipeline`, instead.

        Returns
        -------
        Selection
            (gene, sample); a note names genes none of whose probes passes the filter.

        Raises
        ------
        ChoiceError, RequestError
            If a choice is wrong, no gene is left, or the pipeline leaves out a donor of the selection.
        """
        from lake.choice import choose_probes

        choice, notes = choose_probes(self, pipeline, choices)
        return replace(self, choice=choice, notes=(*self.notes, *notes))

    # ---- labels ----

    @cached_property
    def probes(self) -> "pd.DataFrame":
        """Probes, all columns of the store's table; genes after `per_gene`: symbol, Entrez id, probe, .."""
        if self.choice is not None:
            return self.choice.genes
        return self.store.probes if self.rows is None else self.store.probes.iloc[self.rows]

    @cached_property
    def samples(self) -> "pd.DataFrame":
        """Samples, all columns of the store's table and `labels`; the index is the position in the store."""
        return self.store.samples.iloc[self.columns].assign(**self.labels)

    # ---- values ----

    @property
    def _matrices(self) -> tuple[str, ...]:
        """What can be read: the mean of calls is none."""
        return ("expression", "detected") if self.choice is None else ("expression",)

    def read(self, name: str = "expression", start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Values of a range of the probes (or genes), read from the store.

        Parameters
        ----------
        name : {"expression", "detected"}
        start, stop : int

        Returns
        -------
        (probe, sample) array

        Raises
        ------
        RequestError
            If there is no such matrix; of genes, calls have none.
        StoreError
            If a file is missing or damaged.
        """
        if name not in self._matrices:
            raise RequestError(
                f"{name!r} is unknown; choose one of {', '.join(self._matrices)}"
                + (", or detected before per_gene." if self.choice is not None else ".")
            )
        stop = self.shape[0] if stop is None else min(stop, self.shape[0])
        values = np.empty((stop - start, len(self.columns)), dtype=bool if name == "detected" else np.float64)
        size = ROWS_AT_ONCE if len(self.columns) <= FEW_SAMPLES else BLOCK
        for first in range(start, stop, size):  # what is read besides the answer stays small
            last = min(first + size, stop)
            self._read_into(values[first - start : last - start], name, first, last)
        return values

    def _read_into(self, values: NDArray[Any], name: str, start: int, stop: int) -> None:
        starts = None if self.choice is None else self.choice.starts[start : stop + 1]
        requests = [
            Request(
                self.store.manifest.donors[donor].group,
                self._rows_of(donor, start, stop),
                positions,
                values[:, places] if starts is None and isinstance(places, slice) else None,
            )
            for donor, (places, positions) in self.parts.items()
        ]
        found = self.store.rows.read(name, requests)
        for (places, _), request, part in zip(self.parts.values(), requests, found, strict=True):
            if request.into is None:
                values[:, places] = part if starts is None else _means(part, starts)

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, Floats]]:
        """All expression, some probes (or genes) at a time, to be worked on in bounded memory.

        Yields
        ------
        start : int
            Position of the first probe.
        values : (probe, sample) float64 array
        """
        for start in range(0, self.shape[0], size):
            yield start, self.read("expression", start, start + size)

    def _rows_of(self, donor: str, start: int, stop: int) -> Integers:
        if self.choice is not None:
            starts = self.choice.starts
            return self.choice.rows[donor][starts[start] : starts[stop]]
        return np.arange(start, stop) if self.rows is None else self.rows[start:stop]

    # ---- answers ----

    def to_xarray(self) -> "xr.Dataset":
        """The answer in memory, with all labels.

        Returns
        -------
        xarray.Dataset
            ``expression`` (probe, sample) float64, log2 intensity, and ``detected`` (probe, sample) bool;
            every column of `probes` and `samples` is a coordinate. After `per_gene` ``expression`` (gene,
            sample) alone, with the symbols as index.
        """
        import xarray as xr

        coordinates = {name: (self.dim, column.to_numpy()) for name, column in self.probes.items()}
        coordinates |= {name: ("sample", column.to_numpy()) for name, column in self.samples.items()}
        if self.choice is not None:
            coordinates["gene"] = ("gene", self.probes["gene_symbol"].to_numpy())
        variables = {name: ((self.dim, "sample"), self.read(name)) for name in self._matrices}
        return xr.Dataset(variables, coordinates, self.provenance())

    def to_dataframe(self, rows: Axis = "sample") -> "pd.DataFrame":
        """Expression as a table in memory.

        Parameters
        ----------
        rows : {"sample", "probe"}
            "sample": a row a sample, its labels, then a column for each probe, named by its probe id (each
            gene, by its symbol). "probe": a row a probe (or gene), its labels, then a column for each
            sample, named by its well id.

        Returns
        -------
        pandas.DataFrame
            Its ``attrs`` hold the provenance.

        Raises
        ------
        RequestError
            If `rows` is something else.
        StoreError
            If a file is missing or damaged.
        """
        import pandas as pd

        if rows not in get_args(Axis):
            raise RequestError(f"rows={rows!r} is unknown; choose one of {', '.join(get_args(Axis))}.")
        probes, samples = self.probes, self.samples
        key = "probe_id" if self.choice is None else "gene_symbol"
        labels, names = (samples, probes[key]) if rows == "sample" else (probes, samples["well_id"])
        values = self.read()
        frame = pd.DataFrame(values.T if rows == "sample" else values, columns=[str(n) for n in names])
        table = pd.concat([labels.reset_index(drop=True), frame], axis=1)
        table.attrs = self.provenance()
        return table

    def write(self, path: str | Path, rows: Axis = "sample") -> None:
        """Write `to_dataframe` as .csv, .tsv, .parquet, .feather or .json, by the suffix.

        Text files get their provenance beside them, in ``X.csv.provenance.json``.

        Raises
        ------
        RequestError
            If the suffix is another.
        """
        from lake.answers import format_of, write_answer

        format_of(path)  # before the work
        write_answer(self.to_dataframe(rows), path)

    def provenance(self) -> dict[str, Any]:
        """What was asked, of which snapshot, and what to cite."""
        notes = {"notes": " ".join(self.notes)} if self.notes else {}
        return {"question": self.question, **notes, **self.store.manifest.provenance()}


def everything(store: "Lake") -> Selection:
    """All probes in all samples."""
    return Selection(store, "all samples", np.arange(sum(store.sample_counts.values())))


def named(genes: Genes) -> str:
    """Genes as a question names them: the first few."""
    names = [str(genes)] if isinstance(genes, str | int | np.integer) else [str(gene) for gene in genes]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def counted(number: int, thing: str) -> str:
    """A number of things: ``1 donor``, ``3,702 samples``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _means(part: Floats, starts: Integers) -> Floats:
    """Mean over each gene's rows; every gene has at least one."""
    offsets = starts - starts[0]
    if len(offsets) - 1 == len(part):
        return part
    means: Floats = np.add.reduceat(part, offsets[:-1], axis=0) / np.diff(offsets)[:, np.newaxis]
    return means
