"""Donors' own atlases as one: the same regions, drawn in the native space of each donor's MRI.

A sample's place in its donor's MRI needs no registration to MNI space: it is the voxel at which the tissue
was taken, and the affine of an image on the MRI's grid turns it into mm.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from transforms.atlas import Atlas
from transforms.errors import AtlasError
from transforms.samples import CORRECTED_MNI, MNI

MRI_VOXEL = ["mri_voxel_x", "mri_voxel_y", "mri_voxel_z"]


@dataclass(frozen=True, eq=False)
class AtlasSet:
    """One volume, or one surface, a donor, in the space of that donor's MRI.

    Attributes
    ----------
    name : str
        Short name, used in paths and columns.
    atlases : mapping of str to Atlas
        Donor number -> the donor's atlas; more donors than a pipeline uses do no harm.

    Raises
    ------
    AtlasError
        If there is no atlas, one is not in native space, some are volumes and some surfaces, or an id is not
        the same region in all of them.
    """

    name: str
    atlases: Mapping[str, Atlas] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.atlases:
            raise AtlasError(f"Atlas {self.name!r} has no donor: give one volume or surface for each donor.")
        for donor, atlas in self.atlases.items():
            if atlas.space != "native":
                raise AtlasError(
                    f"Atlas {self.name!r} of donor {donor} is a {atlas.kind} in {atlas.space} space: "
                    "donors' own atlases are in native space."
                )
        if len({atlas.kind for atlas in self.atlases.values()}) > 1:
            raise AtlasError(
                f"Atlas {self.name!r} is a volume for some donors and a surface for others: choose one."
            )
        self._check_regions()

    def _check_regions(self) -> None:
        """Refuse ids that mean one region in one donor and another in the next, as far as that is known."""
        tables = pd.concat({donor: atlas.regions for donor, atlas in self.atlases.items()}, names=["donor"])
        for column in ("hemisphere", "label"):
            known = tables.loc[tables[column] != "", column]
            differ = known[known != known.groupby(level=1).transform("first")]
            for (donor, region), other in differ.head(1).items():
                names = known.xs(region, level=1)
                raise AtlasError(
                    f"Region {region} of atlas {self.name!r} has the {column} {names.iloc[0]!r} in donor "
                    f"{names.index[0]} and {other!r} in donor {donor}: give all donors the same ids."
                )

    @property
    def space(self) -> str:
        """Always "native"."""
        return "native"

    def of(self, donor: str) -> Atlas:
        """The atlas of one donor.

        Raises
        ------
        AtlasError
            If the donor has none.
        """
        if donor not in self.atlases:
            raise AtlasError(
                f"Atlas {self.name!r} has no image for donor {donor}, only for {', '.join(self.atlases)}: "
                "add it, or leave the donor out."
            )
        return self.atlases[donor]

    def without_info(self) -> "AtlasSet":
        """Same atlases whose hemispheres and structures do not constrain the matching of samples."""
        plain = {donor: atlas.without_info() for donor, atlas in self.atlases.items()}
        return AtlasSet(self.name, plain)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Regions of any donor, as `Atlas.regions`, ascending.

        Facts are those of the first donor that has the region. Centroids are NaN, because the donors' spaces
        differ; ``n_nodes`` counts the voxels or vertices of all donors.
        """
        tables = pd.concat([atlas.regions for atlas in self.atlases.values()])
        facts = tables[~tables.index.duplicated()].sort_index()
        places = dict.fromkeys(("centroid_x", "centroid_y", "centroid_z"), np.nan)
        return facts.assign(**places, n_nodes=tables["n_nodes"].groupby(level=0).sum())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the donors and the fingerprints of their atlases."""
        digest = hashlib.sha256(b"atlas set")
        for donor in sorted(self.atlases):
            digest.update(f" {donor} {self.atlases[donor].fingerprint}".encode())
        return digest.hexdigest()


AnyAtlas = Atlas | AtlasSet
"""One atlas for all donors, or one a donor."""


def atlas_of(atlas: AnyAtlas, donor: str) -> Atlas:
    """The atlas that a donor's samples are matched with.

    Raises
    ------
    AtlasError
        If the donor has none.
    """
    return atlas.of(donor) if isinstance(atlas, AtlasSet) else atlas


def place_in_native_space(samples: pd.DataFrame, atlas: AtlasSet) -> pd.DataFrame:
    """Put each sample where it lies in its donor's MRI.

    Parameters
    ----------
    samples : DataFrame
        With ``donor`` and ``mri_voxel_x/y/z``.
    atlas : AtlasSet

    Returns
    -------
    DataFrame
        ``mni_*`` and ``corrected_mni_*`` in mm of the donor's space (NaN for a donor without an atlas), so
        that both choices of coordinates lead here, as in abagen.
    """
    places = np.full((len(samples), 3), np.nan)
    for donor, rows in samples.groupby("donor", sort=False).indices.items():
        if donor in atlas.atlases:
            places[rows] = _native(samples.iloc[rows], atlas.atlases[donor])
    columns = {name: places[:, axis] for names in (MNI, CORRECTED_MNI) for axis, name in enumerate(names)}
    return samples.assign(**columns)


def _native(samples: pd.DataFrame, atlas: Atlas) -> NDArray[np.float64]:
    affine = atlas.affine if atlas.mri_affine is None else atlas.mri_affine
    if affine is None:
        raise AtlasError(f"Atlas {atlas.name!r} does not say where samples are: give the donor's MRI.")
    return np.asarray(apply_affine(affine, samples[MRI_VOXEL].to_numpy()), dtype=np.float64)
