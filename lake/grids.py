"""Grids of pipelines: every combination of chosen values that makes a pipeline, without listing them.

The published multiverse (Markello et al. 2021, eLife 10:e72129) is 373,248 pipelines for each of two atlases.
Few choices forbid or decide each other's values, so a grid is a product of factors, one for each set of
choices that do; a factor is listed and checked, the product is counted and indexed.
"""

import itertools
import math
import random
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

import pandas as pd

from transforms.errors import ChoiceError
from transforms.pipeline import Pipeline, check_choice, interacting_choices

# Combinations of choices that are checked together: a second or two.
MOST_JOINT = 50_000

MULTIVERSE: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "corrected_mni": (True, False),
        "lr_mirror": (None, "bidirectional", "leftright"),
        "reannotated": (True, False),
        "ibf_threshold": (0, 0.25, 0.5),
        "probe_selection": (
            "average",
            "max_intensity",
            "corr_variance",
            "corr_intensity",
            "diff_stability",
            "rnaseq",
        ),
        "donor_probes": ("aggregate", "independent", "common"),
        "missing": (None, "centroids"),
        "tolerance": (0, 1, 2),
        "sample_norm": ("srs", "zscore", None),
        "gene_norm": ("srs", "zscore", None),
        "norm_matched": (True, False),
        "norm_structures": (True, False),
        "region_agg": ("donors", "samples"),
        "agg_metric": ("mean", "median"),
    }
)
"""Choice -> values that Markello et al. 2021 ran; tolerance is mm for the volume, SD for the surface."""


@dataclass(frozen=True)
class LeftOut:
    """Combinations of a grid that make no pipeline of their own.

    Attributes
    ----------
    reason : str
        What excludes them; a sentence.
    combinations : int
        How many there are.
    """

    reason: str
    combinations: int


@dataclass(frozen=True)
class _Factor:
    """Choices that are checked together: their values in each valid combination, and what is not valid."""

    names: tuple[str, ...]
    values: dict[tuple[Any, ...], None]
    left_out: Counter[str]

    @property
    def n_combinations(self) -> int:
        return len(self.values) + self.left_out.total()


class _Pipelines(Sequence[Pipeline]):
    """Pipelines that are made when asked for, by their place; a slice is a list."""

    @overload
    def __getitem__(self, index: int) -> Pipeline: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pipeline]: ...

    def __getitem__(self, index: int | slice) -> Pipeline | list[Pipeline]:
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        return self._at(range(len(self))[index])

    @abstractmethod
    def _at(self, place: int) -> Pipeline:
        """The pipeline at a place from 0 on."""


class Grid(_Pipelines):
    """Pipelines of every valid combination of choices, made when asked for. `grid` makes one.

    Choices that cannot exclude each other vary independently, the first slowest. ``grid[n]``, ``len(grid)``
    and ``pipeline in grid`` list nothing; a slice is a list.

    Parameters
    ----------
    base : Pipeline
        The choices that do not vary.
    choices : mapping of str to sequence
        Choice -> its values.

    Raises
    ------
    ChoiceError
        If a value is wrong or named twice, or no combination is valid.
    """

    def __init__(self, base: Pipeline, choices: Mapping[str, Iterable[Any]]) -> None:
        self.base = base
        self.values = {name: _values(name, values) for name, values in choices.items()}
        joint = _joint(self.values)
        self._factors = [_factor(base, {name: self.values[name] for name in names}) for names in joint]
        self._lists = [[*factor.values] for factor in self._factors]
        size = math.prod(len(factor.values) for factor in self._factors)
        if size > sys.maxsize:
            raise ChoiceError(
                f"The grid has {size:.0e} pipelines, more than can be counted: give fewer values."
            )
        if not size:
            raise ChoiceError(f"The grid has no valid combination: {self.left_out[0].reason}")

    @property
    def n_combinations(self) -> int:
        """Combinations of all values, valid or not."""
        return math.prod(factor.n_combinations for factor in self._factors)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Combinations that make no pipeline of their own, by reason, most first."""
        counts: Counter[str] = Counter()
        for position, factor in enumerate(self._factors):
            before = math.prod(len(other.values) for other in self._factors[:position])
            after = math.prod(other.n_combinations for other in self._factors[position + 1 :])
            counts.update({reason: count * before * after for reason, count in factor.left_out.items()})
        return tuple(LeftOut(reason, count) for reason, count in counts.most_common() if count)

    def choices(self, index: int) -> dict[str, Any]:
        """What varies in the pipeline at this place: choice -> value, quicker than the pipeline itself."""
        rest = range(len(self))[index]
        chosen: dict[str, Any] = {}
        for factor, values in zip(reversed(self._factors), reversed(self._lists), strict=True):
            rest, at = divmod(rest, len(values))
            chosen.update(zip(factor.names, values[at], strict=True))
        return chosen

    def sample(self, n: int, *, seed: int = 0) -> list[Pipeline]:
        """Draw pipelines at random, each once, in the order of the grid.

        Parameters
        ----------
        n : int
        seed : int
            Equal seeds draw equal pipelines, whatever the version of Python.

        Raises
        ------
        ChoiceError
            If there are not as many.
        """
        if not 0 <= n <= len(self):
            raise ChoiceError(f"The grid has {len(self):,} pipelines: draw from 0 to as many, not {n}.")
        return [self[index] for index in sorted(_drawn(len(self), n, random.Random(seed)))]  # noqa: S311

    def __len__(self) -> int:
        return math.prod(len(factor.values) for factor in self._factors)

    def _at(self, place: int) -> Pipeline:
        return self._pipeline(self.choices(place))

    def __iter__(self) -> Iterator[Pipeline]:
        names = [name for factor in self._factors for name in factor.names]
        for combination in itertools.product(*self._lists):
            values = itertools.chain.from_iterable(combination)
            yield self._pipeline(dict(zip(names, values, strict=True)))

    def __contains__(self, pipeline: object) -> bool:
        if not isinstance(pipeline, Pipeline):
            return False
        varied = [tuple(getattr(pipeline, name) for name in factor.names) for factor in self._factors]
        if not all(values in factor.values for values, factor in zip(varied, self._factors, strict=True)):
            return False
        return pipeline == self._pipeline({name: getattr(pipeline, name) for name in self.values})

    def __repr__(self) -> str:
        return f"<Grid of {len(self):,} pipelines, {self.n_combinations - len(self):,} combinations left out>"

    def _pipeline(self, chosen: Mapping[str, Any]) -> Pipeline:
        return Pipeline(**{**self.base.__dict__, **chosen})


def grid(base: Pipeline | str | None = None, **choices: Iterable[Any]) -> Grid:
    """Every valid combination of choices.

    Parameters
    ----------
    base : Pipeline or str, optional
        The choices that do not vary, or a preset's name; abagen's defaults if left out.
    **choices
        Fields of `Pipeline`, each with a list of values.

    Returns
    -------
    Grid
        Combinations that exclude each other, and those that make a pipeline that is there already, are left
        out: ``grid.left_out`` counts them by reason.

    Raises
    ------
    ChoiceError
        If a choice or value is unknown or named twice, a value is not in a list, or nothing is valid.

    Examples
    --------
    >>> made = grid(gene_norm=["srs", "zscore", None], tolerance=[0, 2])
    >>> len(made), made[3].gene_norm, made[3].tolerance
    (6, 'zscore', 2.0)
    """
    return Grid(Pipeline.preset(base) if isinstance(base, str) else base or Pipeline(), choices)


def multiverse(base: Pipeline | str | None = None, **choices: Iterable[Any]) -> Grid:
    """The published grid of Markello et al. 2021: 373,248 pipelines, to be run for each of their two atlases.

    Parameters
    ----------
    base : Pipeline or str, optional
        As for `grid`.
    **choices
        Lists that replace those of `MULTIVERSE`, or come in addition.

    Returns
    -------
    Grid
        The same for both atlases: a tolerance of 2 is 2 mm for a volume and 2 SD for a surface.

    Raises
    ------
    ChoiceError
        As `grid`.

    References
    ----------
    Markello et al. 2021, eLife 10:e72129; ``scripts/generate_parameters.py`` of their repository.
    """
    return grid(base, **{**MULTIVERSE, **choices})


class Joined(_Pipelines):
    """Pipelines that are listed, then those of a grid; each once, and the grid still unlisted.

    Parameters
    ----------
    listed : iterable of Pipeline
    then : Grid
    """

    def __init__(self, listed: Iterable[Pipeline], then: Grid) -> None:
        self.listed = [pipeline for pipeline in dict.fromkeys(listed) if pipeline not in then]
        self.grid = then

    def __len__(self) -> int:
        return len(self.listed) + len(self.grid)

    def _at(self, place: int) -> Pipeline:
        after = place - len(self.listed)
        return self.listed[place] if after < 0 else self.grid[after]

    def __iter__(self) -> Iterator[Pipeline]:
        return itertools.chain(self.listed, self.grid)

    def __contains__(self, pipeline: object) -> bool:
        return pipeline in self.listed or pipeline in self.grid


# How --------------------------------------------------------------------------------------------------------


def _values(name: str, given: Any) -> tuple[Any, ...]:
    """The values of a choice, checked, each once."""
    if isinstance(given, str | Mapping | pd.DataFrame) or not isinstance(given, Iterable):
        raise ChoiceError(f"{name}={given!r}: a grid takes a list of values, [{given!r}].")
    values = tuple(check_choice(name, value) for value in given)
    if not values:
        raise ChoiceError(f"{name} has no value: name at least one, or leave it out.")
    if len(set(values)) < len(values):
        repeated = next(value for value in values if values.count(value) > 1)
        raise ChoiceError(f"{name} has the value {repeated!r} twice: name it once.")
    return values


def _joint(names: Iterable[str]) -> list[list[str]]:
    """Sets of the choices that vary which are checked together, in the order of their first."""
    groups: list[list[str]] = [[name] for name in names]
    for together in interacting_choices():
        touched = [group for group in groups if together & {*group}]
        if len(touched) > 1:
            groups = [group for group in groups if group not in touched[1:]]
            touched[0].extend(itertools.chain.from_iterable(touched[1:]))
    return groups


def _factor(base: Pipeline, values: Mapping[str, tuple[Any, ...]]) -> _Factor:
    """List and check the combinations of choices that are checked together."""
    size = math.prod(map(len, values.values()))
    if size > MOST_JOINT:
        raise ChoiceError(
            f"{', '.join(values)} can exclude each other and have {size:,} combinations, more than can be "
            f"checked ({MOST_JOINT:,}): give fewer values, or make several grids."
        )
    valid: dict[tuple[Any, ...], None] = {}
    left_out: Counter[str] = Counter()
    for combination in itertools.product(*values.values()):
        try:
            pipeline = Pipeline(**{**base.__dict__, **dict(zip(values, combination, strict=True))})
        except ChoiceError as error:
            left_out[str(error)] += 1
            continue
        made = tuple(getattr(pipeline, name) for name in values)
        if made in valid:
            left_out[_decided(pipeline)] += 1
        valid[made] = None
    return _Factor(tuple(values), valid, left_out)


def _decided(pipeline: Pipeline) -> str:
    return (
        f"probe_selection={pipeline.probe_selection!r} always takes donor_probes={pipeline.donor_probes!r}: "
        "the same pipeline is in the grid already."
    )


def _drawn(size: int, n: int, source: random.Random) -> set[int]:
    """Draw n numbers below `size` (Floyd's algorithm) by random() alone, which versions of Python share."""
    drawn: set[int] = set()
    for last in range(size - n, size):
        number = int(source.random() * (last + 1))
        drawn.add(last if number in drawn else number)
    return drawn
