"""The feed: batches of rows x features with labels, shuffled in blocks, read from where rows lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lake.errors import RequestError
from lake.learning import splits
from lake.learning.copying import matrix_of
from lake.learning.observations import COORDINATES, Observations, Source, observations
from lake.learning.optional import needed
from lake.learning.order import Integers, epoch_batches, epoch_order, laid_order
from lake.learning.reader import Batch, Reader
from lake.learning.scaling import fit_scaling
from transforms.scaling import Scaling

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

MEMORY = 64 << 20
DTYPES = ("float32", "float64")
LABELS = {"sample": ("donor", COORDINATES), "region": ("region", COORDINATES)}
"""Labels that are fed where none are asked for."""


@dataclass(frozen=True, eq=False)
class Feed:
    """Batches of rows x features with labels; made by `lake.feed`. Unchanging: methods give new feeds.

    Attributes
    ----------
    observations : Observations
        All rows, those of other parts of a split too: `Batch.rows` counts in them.
    index : (row,) int array
        The rows that this feed has, ascending.
    batch_size, block_size : int
    seed : int or None
        None: not shuffled.
    rank, world_size : int
    """

    observations: Observations
    reader: Reader = field(repr=False)
    index: Integers = field(repr=False)
    batch_size: int
    block_size: int
    seed: int | None
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Rows, of all ranks."""
        return len(self.index)

    def __repr__(self) -> str:
        n_rows, n_features = self.shape
        labels = ", ".join(self.reader.labels) or "none"
        shard = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return (
            f"<Feed of {n_rows:,} {self.observations.kind}s x {n_features:,} features; labels {labels}; "
            f"batches of {self.batch_size}{shard}>"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (of all ranks) and features."""
        return len(self.index), self.observations.shape[1]

    @property
    def rows(self) -> pd.DataFrame:
        """What is known of the rows that this feed has; the index is what `Batch.rows` says."""
        return self.observations.rows.iloc[self.index]

    @property
    def names(self) -> NDArray[Any]:
        """Gene symbols, or probe ids, of the features."""
        return self.observations.names

    @property
    def n_batches(self) -> int:
        """Batches of an epoch (of this rank)."""
        return len(self.batches(0))

    # ---- batches ----

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """All rows (of this rank) once, in batches; the last one has what is left.

        Parameters
        ----------
        epoch : int
            The order follows from the seed and this number alone.

        Yields
        ------
        Batch
            As NumPy arrays; text as objects.

        Raises
        ------
        DamageError
            If the copy that is read is damaged.
        """
        for places in self.batches(epoch):
            yield self.reader.read(places)

    def batches(self, epoch: int) -> list[Integers]:
        """Places (see `places`) of each batch of an epoch."""
        seeds = None if self.seed is None else (self.seed, epoch)
        order = epoch_order(np.sort(self.places), self.block_size, seeds=seeds)
        return epoch_batches(order, self.batch_size, rank=self.rank, world_size=self.world_size)

    @cached_property
    def places(self) -> Integers:
        """Where each row of `index` lies."""
        return np.argsort(self.reader.laid)[self.index]

    def loader(self, *, num_workers: int = 0, **options: Any) -> "DataLoader[Batch]":
        """A PyTorch loader of the same batches as tensors; every ``iter(..)`` of it is the next epoch.

        Parameters
        ----------
        num_workers : int
            Processes that read; the batches are the same with any number of them.
        **options
            Of `torch.utils.data.DataLoader`: ``pin_memory``, ``multiprocessing_context``, .. The first epoch
            is 0; ``loader.batch_sampler.set_epoch(n)`` chooses another.

        Returns
        -------
        torch.utils.data.DataLoader
            Of `Batch`: text labels are numbers, see `classes`.

        Raises
        ------
        RequestError
            If PyTorch is not installed.
        """
        needed("torch", "A loader", "torch")
        from lake.learning.pytorch import make_loader

        return make_loader(self, num_workers=num_workers, **options)

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """Text labels -> their values, in the order in which PyTorch gets them as numbers."""
        labels = self.reader.labels
        return {name: sorted(set(map(str, v))) for name, v in labels.items() if v.dtype.kind == "O"}

    # ---- parts ----

    def where(self, chosen: NDArray[np.bool_] | pd.Series) -> "Feed":
        """Some of the rows.

        Parameters
        ----------
        chosen : (row,) bool array
            For each row of `rows`.

        Raises
        ------
        RequestError
            If there is not one value a row, or no row is left.
        """
        kept = np.asarray(chosen)
        if kept.shape != self.index.shape or kept.dtype != bool:
            raise RequestError(f"True or False is needed for each of {len(self.index)} rows.")
        if not kept.any():
            raise RequestError("No row is left.")
        return replace(self, index=self.index[kept])

    def split_by_donor(self, test: str | Sequence[str]) -> "tuple[Feed, Feed]":
        """All other donors, and these donors.

        Raises
        ------
        RequestError
            If a donor has no row, no donor is left, or rows have no donor.
        """
        return self._split(splits.by_donor(self._label("donor").astype(object), test))

    def donor_folds(self) -> "Iterator[tuple[str, Feed, Feed]]":
        """Each donor left out in turn.

        Yields
        ------
        donor : str
        train, test : Feed
        """
        donor = self._label("donor").astype(object)
        for name in pd.unique(donor):
            yield (str(name), *self.split_by_donor(str(name)))

    def split_by_space(
        self, fraction: float = 0.2, *, margin: float = 10, size: float = 30, seed: int = 0
    ) -> "tuple[Feed, Feed]":
        """All but some cubes of space and their neighbourhood, and the cubes.

        Parameters
        ----------
        fraction : float
            Share of the rows to hold back, at least.
        margin : float
            mm: nothing learnt from is so near to what is held back. Rows between are in neither.
        size : float
            Edge of the cubes, mm.
        seed : int

        Raises
        ------
        RequestError
            If a number makes no sense, or one of the parts is empty.
        """
        places = self._label(COORDINATES)
        return self._split(splits.by_space(places, fraction=fraction, margin=margin, size=size, seed=seed))

    def split_at_random(self, fraction: float = 0.2, *, seed: int = 0) -> "tuple[Feed, Feed]":
        """All but a share of the rows, and that share; neighbours and donors are in both.

        Raises
        ------
        RequestError
            If one of the parts is empty.
        """
        return self._split(splits.at_random(len(self.index), fraction, seed))

    def shard(self, rank: int, world_size: int) -> "Feed":
        """One process's share of each epoch in distributed training.

        Shares have no row in common, together every row, and the same number of batches; their sizes differ
        by one row at most.

        Raises
        ------
        RequestError
            If there is no such rank, or not a row for each.
        """
        if not 0 <= rank < world_size:
            raise RequestError(f"rank={rank} of world_size={world_size}: ranks count from 0.")
        if world_size > len(self.index):
            raise RequestError(f"{len(self.index)} rows are too few for {world_size} ranks.")
        return replace(self, rank=rank, world_size=world_size)

    def _split(self, parts: splits.Parts) -> "tuple[Feed, Feed]":
        train, test = parts
        return self.where(train), self.where(test)

    def _label(self, name: str) -> NDArray[Any]:
        return self.observations.label(name)[self.index]

    # ---- normalisation ----

    def fit_scaling(self, method: str = "zscore") -> Scaling:
        """Fit a normalisation of each feature on the rows of this feed, and no others.

        Parameters
        ----------
        method : str
            ``zscore``, ``srs``, ..: see `lake.learning.scaling.fit_scaling`.

        Raises
        ------
        ChoiceError, RequestError
            If the method is unknown or there are too few rows.
        """
        return fit_scaling(self.observations.blocks(), self.index, method)

    def scaled(self, scaling: Scaling) -> "Feed":
        """The same rows, normalised by what was fitted, perhaps on other rows."""
        dtype = self.reader.matrix.dtype
        parts: list[Any] = [part if part is None else part.astype(dtype) for part in scaling[1:]]
        return replace(self, reader=replace(self.reader, scaling=Scaling(scaling.function, *parts)))

    # ---- what a loader reads with ----

    def coded(self) -> Reader:
        """The reader, with text labels as positions in `classes`, other labels in the expression's type."""
        dtype = self.reader.matrix.dtype
        labels = {
            name: np.searchsorted(self.classes[name], values.astype(str))
            if name in self.classes
            else _as_number(values, dtype)
            for name, values in self.reader.labels.items()
        }
        return replace(self.reader, labels=labels)


def _as_number(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return values.astype(dtype) if values.dtype.kind == "f" else values


def feed(
    source: Source | Observations,
    *,
    labels: Sequence[str] | None = None,
    batch_size: int = 64,
    block_size: int = 32,
    seed: int | None = 0,
    dtype: str = "float32",
    memory: int = MEMORY,
    cache: str | Path | None = None,
    **choices: Any,
) -> Feed:
    """Feed samples x genes, or regions x genes, to a model: in batches, with labels, shuffled.

    Parameters
    ----------
    source : Lake, Selection, path or Observations
        A store, a selection of one, or a directory of tables; see `lake.observations`.
    labels : sequence of str, optional
        What comes with each row: ``coordinates`` (MNI152 mm), columns of `Lake.samples` or of the regions'
        table, and what `regions` and `maps` add. ``donor`` (``region``) and ``coordinates`` if left out, and
        what `regions` and `maps` add.
    batch_size : int
    block_size : int
        Rows that are read, and stay, together. Which rows share a block is random, and the same in every
        epoch.
    seed : int or None
        Of the shuffling. None: not shuffled; rows come in the order in which they lie, which is no other's.
    dtype : {"float32", "float64"}
        Of the expression.
    memory : int
        Bytes up to which expression is kept in memory; a larger one is copied to a Zarr array with a row a
        sample, in bounded memory, and read from there.
    cache : str or pathlib.Path, optional
        A folder where that copy is kept, and found again by the next feed of the same rows and features. If
        left out, it goes with the feed.
    **choices
        ``pipeline``, ``atlas``, ``donor_tables``, ``regions``, ``maps``, ``corrected_mni``: see
        `lake.observations`.

    Returns
    -------
    Feed

    Raises
    ------
    RequestError, ChoiceError, AtlasError
        If the source, a label or a choice is wrong.
    """
    _check(batch_size, block_size, dtype, seed)
    found = observations(source, **choices)
    named = _labels(found, labels, choices)
    values = {name: found.label(name) for name in named}
    laid = laid_order(len(found.rows))
    matrix = matrix_of(
        found.blocks,
        laid,
        found.shape[1],
        dtype,
        block_size=block_size,
        memory=memory,
        home=None if cache is None else Path(cache),
        name=f"{found.identity} laid",
    )
    reader = Reader(matrix, laid, {name: _plain(column) for name, column in values.items()})
    return Feed(found, reader, np.arange(len(laid)), batch_size, block_size, seed)


def _check(batch_size: int, block_size: int, dtype: str, seed: int | None) -> None:
    for name, value in {"batch_size": batch_size, "block_size": block_size}.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise RequestError(f"{name}={value!r}: a whole number, 1 or more, is needed.")
    if dtype not in DTYPES:
        raise RequestError(f"dtype={dtype!r} is unknown; choose one of {', '.join(DTYPES)}.")
    if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
        raise RequestError(f"seed={seed!r}: a whole number, 0 or more, or None is needed.")


def _labels(found: Observations, labels: Sequence[str] | None, choices: Mapping[str, Any]) -> list[str]:
    if isinstance(labels, str):
        return [labels]
    if labels is not None:
        return list(labels)
    regions = choices.get("regions")
    added = [] if regions is None else list(regions) if isinstance(regions, Mapping) else ["region"]
    return [*dict.fromkeys([*LABELS[found.kind], *added, *(choices.get("maps") or {})])]


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    return column.astype(object) if column.dtype.kind in "TU" else column
