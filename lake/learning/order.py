"""In which order rows lie, and in which they are fed: functions of numbers alone.

Rows are fed in blocks of neighbours, as they are read. So that neighbours in a block have nothing to do
with each other, rows are laid down in a random order that never changes (`laid_order`); an epoch then
shuffles whole blocks (`epoch_batches`). Which batches come is decided by the rows, the sizes, the seed and
the epoch: not by the number of processes, nor by where the rows lie.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

LAYING = 0x41484241
"""Seed of the order in which rows lie: that of nothing else."""


def shuffled(n: int, *seeds: int) -> Integers:
    """A random order of n things, the same for the same seeds with every NumPy.

    The raw numbers of a bit generator are guaranteed never to change, what `numpy.random.Generator` makes
    of them is not.
    """
    numbers = np.random.Philox(np.random.SeedSequence(seeds)).random_raw(n)
    return np.argsort(numbers, kind="stable").astype(np.int64)


def laid_order(n: int) -> Integers:
    """Which row lies at each place."""
    return shuffled(n, LAYING)


def epoch_order(places: Integers, block_size: int, *, seeds: tuple[int, int] | None) -> Integers:
    """Places in the order in which an epoch takes them: whole blocks shuffled, ascending within a block.

    Blocks that lack rows come after the others: as long as none has come, no batch ends inside a block.

    Parameters
    ----------
    places : (row,) int array
        Ascending.
    block_size : int
    seeds : (seed, epoch) or None
        None: in ascending order.
    """
    if seeds is None:
        return places
    _, starts = np.unique(places // block_size, return_index=True)
    blocks = np.split(places, starts[1:])
    order = [blocks[block] for block in shuffled(len(blocks), *seeds)]
    return np.concatenate(sorted(order, key=lambda block: len(block) < block_size))


def epoch_batches(order: Integers, batch_size: int, *, rank: int = 0, world_size: int = 1) -> list[Integers]:
    """One rank's batches of an epoch.

    Parameters
    ----------
    order : (row,) int array
        Of all ranks together, not fewer than ranks.
    batch_size : int
    rank, world_size : int

    Returns
    -------
    list of int array
        `batch_size` rows each, the last one what is left. Ranks share all rows, each its own, and their
        numbers differ by one at most. So that none waits for another, all have the same number of batches:
        a rank with one row less may have its last batch cut in two. (Only batches of one row cannot be.)
    """
    edges = np.arange(world_size + 1) * len(order) // world_size
    part = order[edges[rank] : edges[rank + 1]]
    batches = [part[start : start + batch_size] for start in range(0, len(part), batch_size)]
    lacking = -(-int(np.diff(edges).max()) // batch_size) - len(batches)
    return [*batches[:-1], *np.array_split(batches[-1], 2)] if lacking and batch_size > 1 else batches


def runs(values: Integers) -> Iterator[tuple[int, int]]:
    """Where equal neighbours begin and end."""
    edges = np.r_[0, np.flatnonzero(np.diff(values)) + 1, len(values)]
    for start, stop in pairwise(edges):
        yield int(start), int(stop)
