"""Combinations of choices such that every two values of every two choices meet at least once.

A covering array of strength two, made greedily (Cohen et al. 1997, IEEE Trans. Softw. Eng. 23:437): a
combination takes, choice after choice, the value that meets the most values it has not met yet. The best of
some orders of the choices is kept. The same arguments give the same combinations, on every machine.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

Combination = dict[str, Any]
"""Choice -> value."""

TRIES = 12  # orders of the choices tried for a combination


@dataclass(frozen=True)
class Excluded:
    """Two values that no combination of the design has together.

    Attributes
    ----------
    values : dict of str to object
        Two choices, a value each.
    reason : str
    """

    values: Mapping[str, Any]
    reason: str


@dataclass
class _Board:
    """Which values may meet, and which have yet to; a value is a position in `values`."""

    values: list[tuple[str, Any]]
    allowed: np.ndarray
    wanted: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.want_all()

    def want_all(self) -> None:
        self.wanted = self.allowed.copy()

    def levels(self, choice: str) -> list[int]:
        return [at for at, (name, _) in enumerate(self.values) if name == choice]

    def positions(self, combination: Combination) -> list[int]:
        return [self.values.index((name, value)) for name, value in combination.items()]

    def meet(self, chosen: list[int]) -> None:
        self.wanted[np.ix_(chosen, chosen)] = False

    def new_pairs(self, chosen: list[int]) -> int:
        return int(self.wanted[np.ix_(chosen, chosen)].sum()) // 2


def covering_design(
    choices: Mapping[str, Sequence[Any]],
    *,
    excluded: Sequence[Excluded] = (),
    given: Sequence[Combination] = (),
    at_least: int = 0,
    seed: int = 0,
) -> list[Combination]:
    """Combinations in which every pair of values of two choices is met that is not excluded.

    Parameters
    ----------
    choices : dict of str to sequence
        Each choice's values.
    excluded : sequence of Excluded
        Pairs that are left out.
    given : sequence of dict
        Combinations that the design begins with; they may hold excluded pairs.
    at_least : int
        If fewer combinations do, others follow that meet pairs a second time.
    seed : int

    Returns
    -------
    list of dict
        Each with a value for every choice, in the order of `choices`.

    Raises
    ------
    ValueError
        If a pair that is not excluded cannot be met, since a third choice has no value that goes with it.
    """
    board = _board(choices, excluded)
    rng = random.Random(seed)
    for combination in given:
        board.meet(board.positions(combination))
    design = [{name: combination[name] for name in choices} for combination in given]
    while board.wanted.any():
        design.append(_best(board, list(choices), rng))
    while len(design) < at_least:
        if not board.wanted.any():
            board.want_all()
        design.append(_best(board, list(choices), rng))
    return design


def pairs(combination: Combination) -> Iterator[tuple[tuple[str, Any], tuple[str, Any]]]:
    """Yield every two of a combination's (choice, value)."""
    yield from combinations(sorted(combination.items(), key=lambda item: item[0]), 2)


def all_pairs(choices: Mapping[str, Sequence[Any]]) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """Every two values of every two choices."""
    return {
        ((first, one), (second, two))
        for first, second in combinations(sorted(choices), 2)
        for one in choices[first]
        for two in choices[second]
    }


def _board(choices: Mapping[str, Sequence[Any]], excluded: Sequence[Excluded]) -> _Board:
    values = [(name, value) for name, levels in choices.items() for value in levels]
    names = np.array([name for name, _ in values])
    board = _Board(values, names[:, None] != names)
    for pair in excluded:
        one, two = board.positions(dict(pair.values))
        board.allowed[one, two] = board.allowed[two, one] = False
    board.want_all()
    return board


def _best(board: _Board, names: list[str], rng: random.Random) -> Combination:
    """The combination that meets the most new pairs of those tried; they are met then."""
    chosen = max((_candidate(board, names, rng) for _ in range(TRIES)), key=board.new_pairs)
    if not board.new_pairs(chosen):
        one, two = (board.values[at] for at in np.argwhere(board.wanted)[0])
        raise ValueError(f"{one[0]}={one[1]!r} and {two[0]}={two[1]!r} cannot meet: exclude them, say why.")
    board.meet(chosen)
    found = dict(board.values[at] for at in chosen)
    return {name: found[name] for name in names}


def _candidate(board: _Board, names: list[str], rng: random.Random) -> list[int]:
    """One combination around a pair that has yet to meet; empty where a choice is left without a value."""
    first, second = _one_of(np.argwhere(_hardest(board)), rng)
    chosen = [first, second]
    taken = {board.values[at][0] for at in chosen}
    for name in sorted((name for name in names if name not in taken), key=lambda _: rng.random()):
        possible = [at for at in board.levels(name) if board.allowed[at, chosen].all()]
        if not possible:
            return []
        chosen.append(max(possible, key=lambda at: (board.wanted[at, chosen].sum(), rng.random())))
    return chosen


def _one_of(rows: np.ndarray, rng: random.Random) -> list[int]:
    """One row; by `random`, whose numbers are the same in every version of Python."""
    row: list[int] = rows[int(rng.random() * len(rows))].tolist()
    return row


def _hardest(board: _Board) -> np.ndarray:
    """The pairs yet to meet of the value that has the most of them."""
    row = board.wanted.sum(axis=1).argmax()
    return board.wanted & (np.arange(len(board.values)) == row)[:, None]
