"""The feed for PyTorch: a map-style dataset, and a sampler whose every batch is one read.

The sampler runs in the process that trains, and worker processes answer in its order: however many there
are, and however they were started, the batches are the same.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lake.learning.reader import Batch

if TYPE_CHECKING:
    from lake.learning.feed import Feed


class FeedDataset(Dataset[Batch]):  # type: ignore[misc]
    """A feed's rows by number, in the order of `Feed.rows`.

    Parameters
    ----------
    feed : Feed
    """

    def __init__(self, feed: "Feed") -> None:
        self._reader, self._places = feed.coded(), feed.places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> Batch:
        """One row: its expression (feature,), labels and number."""
        expression, labels, rows = self.__getitems__([row])
        return Batch(expression[0], {name: values[0] for name, values in labels.items()}, rows[0])

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Several rows as tensors, in one read."""
        batch = self._reader.read(self._places[np.asarray(rows, np.int64)])
        labels = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in batch.labels.items()}
        return Batch(torch.from_numpy(batch.expression), labels, torch.from_numpy(batch.rows))


class BlockBatchSampler(Sampler[list[int]]):  # type: ignore[misc]
    """Rows of each batch of an epoch: those that the feed's own `Feed.epoch` has.

    Every iteration is the next epoch, from 0 on; `set_epoch` chooses another.

    Parameters
    ----------
    feed : Feed
    """

    def __init__(self, feed: "Feed") -> None:
        self._feed = feed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the next iteration's epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._feed.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        row = np.argsort(self._feed.places)
        ascending = self._feed.places[row]
        for places in self._feed.batches(epoch):
            yield row[np.searchsorted(ascending, places)].tolist()


def make_loader(feed: "Feed", *, num_workers: int, **options: Any) -> "DataLoader[Batch]":
    """A loader of a feed's batches; see `Feed.loader`."""
    return DataLoader(
        FeedDataset(feed),
        batch_sampler=BlockBatchSampler(feed),
        num_workers=num_workers,
        collate_fn=_as_it_is,
        **options,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch
