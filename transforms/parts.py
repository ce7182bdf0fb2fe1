"""Which of a donor's samples fall into which region, and each gene normalised over those that are left."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.assign import assign, count_inside, warn_if_misplaced
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, atlas_of
from transforms.blocks import take_columns
from transforms.errors import AtlasError
from transforms.normalize import (
    BATCH,
    donor_effects,
    donor_means,
    refuse_single_donors,
    scaled_within,
)
from transforms.pipeline import Pipeline
from transforms.ranks import Ranked
from transforms.region_sets import REGION_SETS
from transforms.scaled import Groups, Scaled, as_array
from transforms.scaling import FITS, FITS_TO_SORTED
from transforms.tasks import task
from transforms.values import Values

Floats = NDArray[np.float64]


class Taken(NamedTuple):
    """Some samples of a matrix.

    Attributes
    ----------
    values : (gene, column) float64 array
    groups : Groups
        Which columns they are, and which of them are normalised together.
    order : (gene, column) uint16 array or None
        In which the values ascend, where it is known.
    """

    values: Floats
    groups: Groups
    order: NDArray[np.uint16] | None = None

    @property
    def array(self) -> Floats:
        """The values of the samples, (gene, left)."""
        return take_columns(self.values, self.groups.at)

    def alone(self) -> "Taken":
        """The same samples, in a matrix that has no others."""
        return Taken(self.array, self.groups.alone)


@dataclass(frozen=True, eq=False)
class Part:
    """One donor's samples on their way into regions.

    Attributes
    ----------
    donor : str
    left : (left,) int array
        Positions, among the donor's prepared samples, of those that are normalised together.
    samples : pandas.DataFrame
        The samples left.
    labels : (left,) int array
        Their regions, 0 for none.
    """

    donor: str
    left: NDArray[np.intp]
    samples: pd.DataFrame
    labels: NDArray[np.int64]


def part_of(donor: str, samples: pd.DataFrame, labels: NDArray[np.int64], *, norm_matched: bool) -> Part:
    """What is left of one donor's prepared samples: those in a region, or all of them."""
    left = left_of(labels, norm_matched=norm_matched)
    return Part(donor, left, samples.iloc[left], labels[left])


def left_of(labels: NDArray[np.int64], *, norm_matched: bool) -> NDArray[np.intp]:
    """Positions of the samples that are left, among a donor's: those in a region, or all of them."""
    return np.flatnonzero(labels) if norm_matched else np.arange(len(labels))


def parts_of(prepared: pd.DataFrame, labels: dict[str, NDArray[np.int64]], pipeline: Pipeline) -> list[Part]:
    """The part of each donor that `label_samples` names."""
    return [
        part_of(donor, samples, labels[donor], norm_matched=pipeline.norm_matched)
        for donor, samples in prepared.groupby("donor", sort=False)
        if donor in labels
    ]


@dataclass(frozen=True, eq=False)
class GeneNormalization:
    """How each gene is normalised over the samples left of each donor.

    Attributes
    ----------
    method : str or None
        A name of `transforms.normalize.NORMALIZATIONS`; None or ``batch`` for none within a donor.
    quantiles : str
    removes_donors : bool
        First take off what donors differ in, as ``batch`` does.
    rescales : bool
        False leaves the values as they are, but for those of genes that the method cannot normalise: NaN.
    classes : dict of str to (left,) array
        Donor -> the structure class of each sample, where these are normalised apart.
    """

    method: str | None
    quantiles: str
    removes_donors: bool
    rescales: bool
    classes: dict[str, NDArray[np.object_]]

    @classmethod
    def of(cls, pipeline: Pipeline, parts: list[Part]) -> "GeneNormalization":
        """What a pipeline says, for the parts of its donors.

        Raises
        ------
        ChoiceError
            If donors' effects are to be removed and fewer than two donors have samples left.
        """
        removes_donors = BATCH in (pipeline.sample_norm, pipeline.gene_norm)
        if removes_donors:
            refuse_single_donors([part.donor for part in parts if len(part.left)])
        apart = pipeline.norm_structures or REGION_SETS[pipeline.normalise_what].separate
        return cls(
            method=None if pipeline.gene_norm == BATCH else pipeline.gene_norm,
            quantiles=pipeline.quantiles,
            removes_donors=removes_donors,
            rescales=pipeline.do_normalise,
            classes={p.donor: p.samples["structure"].to_numpy(object) for p in parts} if apart else {},
        )

    def __call__(self, values: dict[str, Taken]) -> dict[str, Floats | Scaled]:
        """Donor -> values of some genes, and which of their columns are left, to (gene, left) normalised."""
        effects = self._effects(values)
        return {donor: self._normalized(taken, effects.get(donor)) for donor, taken in values.items()}

    def _effects(self, values: dict[str, Taken]) -> dict[str, Floats]:
        """What ``batch`` takes off each gene: a linear model of the donors comes down to their means."""
        if not self.removes_donors:
            return {}
        taken = {donor: own.array for donor, own in values.items()}
        return donor_effects({donor: donor_means(own) for donor, own in taken.items() if own.shape[1]})

    def _normalized(self, taken: Taken, effect: Floats | None) -> Floats | Scaled:
        if effect is not None or self.method is None or not self.rescales:
            taken = taken.alone()
        values, groups, order = taken
        if effect is not None:
            values = values - effect[:, np.newaxis]
        if self.method is None or not values.shape[1]:
            return values
        normalized = scaled_within(values, self.method, groups, quantiles=self.quantiles, order=order)
        if self.rescales:
            return normalized
        undefined = np.isnan(as_array(normalized)).any(axis=1, keepdims=True)
        return np.where(undefined, np.nan, values)


def is_by_order(pipeline: Pipeline) -> bool:
    """Whether genes are normalised by what the order of their samples tells, see `transforms.ranks`."""
    name = pipeline.gene_norm
    return pipeline.quantiles == "linear" and name in FITS and FITS[name] in FITS_TO_SORTED


def normalized_blocks(values: Values, parts: list[Part], normalization: GeneNormalization) -> list[Any]:
    """Each block of genes of all donors, normalised: a task that gives donor -> (gene, left).

    Returns
    -------
    list of dask.delayed.Delayed
    """
    found = [values.blocks(part.donor, part.left) for part in parts]
    groups = {
        part.donor: Groups.of(
            np.arange(len(part.left)) if columns is None else columns, normalization.classes.get(part.donor)
        )
        for part, (_, columns) in zip(parts, found, strict=True)
    }
    work = partial(_normalized_block, groups=groups, normalization=normalization)
    return [task(work, block) for block in zip(*(blocks for blocks, _ in found), strict=True)]


def _normalized_block(
    values: list[Any], groups: dict[str, Groups], normalization: GeneNormalization
) -> dict[str, Floats | Scaled]:
    return normalization(
        {donor: _opened(own, taken) for (donor, taken), own in zip(groups.items(), values, strict=True)}
    )


def _opened(block: Any, groups: Groups) -> Taken:
    """A block as an array; what is not one is read, or made, for these samples alone."""
    if isinstance(block, Ranked):
        return Taken(block.values, groups, block.order)
    if isinstance(block, np.ndarray):
        return Taken(block, groups)
    is_whole = isinstance(groups.at, slice) and groups.at == slice(0, block.shape[1])
    return Taken(block[:] if is_whole else take_columns(block, groups.at), groups.alone)


def label_samples(
    prepared: pd.DataFrame, atlas: AnyAtlas, pipeline: Pipeline
) -> dict[str, NDArray[np.int64]]:
    """The region of every prepared sample, by donor; 0 for none.

    Donors that ``normalise_what`` leaves out are not in it, and its samples are in its regions only.

    Warns
    -----
    UserWarning
        If far fewer samples than the atlas's size promises are in a region.

    Raises
    ------
    AtlasError
        If a donor has no atlas, or ``divide_samples`` or ``normalise_what`` need to know more of the regions.
    """
    wanted = REGION_SETS[pipeline.normalise_what]
    regions, donors = wanted.regions(atlas.regions, atlas=atlas.name), wanted.donors(prepared)
    labels = {}
    for donor, samples in prepared.groupby("donor", sort=False):
        if donor in donors:
            own = atlas_of(atlas, donor)
            found = assign(samples, own, tolerance=pipeline.tolerance, matching=pipeline.matching)
            kept = np.isin(found, regions)
            if pipeline.divide_samples is not None:
                kept &= _is_divided(samples, own)
            labels[donor] = np.where(kept, found, 0)
    if isinstance(atlas, Atlas) and any(found.any() for found in labels.values()):
        by_donor = dict(iter(prepared.groupby("donor", sort=False)))
        inside = [count_inside(by_donor[d], found, atlas, pipeline.tolerance) for d, found in labels.items()]
        warn_if_misplaced(sum(inside), sum(map(len, labels.values())), atlas)
    return labels


def _is_divided(samples: pd.DataFrame, atlas: Atlas) -> NDArray[np.bool_]:
    """Mark the samples that have a side and a part, with which the regions can be compared."""
    if not atlas.has_info:
        raise AtlasError(
            f"divide_samples matches the samples of a side and part with its regions, and hemisphere and "
            f"structure of those of atlas {atlas.name!r} are not known, or not used: give atlas_info."
        )
    return np.asarray((samples["hemisphere"] != "") & (samples["structure"] != ""))
