"""Which regions and donors are normalised together (``normaliseWhat`` of AHBAprocessing).

Four of the six donors were sampled in the left hemisphere only. A table of the left cortex can use all six;
one of both hemispheres uses the two that have both.
Source: Arnatkeviciute et al. 2019, NeuroImage 189:353, step S4.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.errors import AtlasError, ChoiceError


@dataclass(frozen=True)
class RegionSet:
    """Regions of some hemispheres and structures, and the donors that they are averaged over.

    Attributes
    ----------
    hemispheres : tuple of str
        "L", "R", "B".
    structures : tuple of str
        Structure classes; empty for all.
    both_sides : bool
        Only donors with samples in the left and the right hemisphere.
    separate : bool
        Genes are normalised within each structure class.
    """

    hemispheres: tuple[str, ...]
    structures: tuple[str, ...] = ()
    both_sides: bool = False
    separate: bool = False

    def regions(self, table: pd.DataFrame, *, atlas: str) -> NDArray[np.int64]:
        """Ids of the regions in the set, ascending.

        Parameters
        ----------
        table : pandas.DataFrame
            `Atlas.regions`.
        atlas : str
            Its name, for messages.

        Raises
        ------
        AtlasError
            If none is: hemisphere or structure are not known, or there is no such region.
        """
        inside = table["hemisphere"].isin(self.hemispheres)
        if self.structures:
            inside &= table["structure"].isin(self.structures)
        if not inside.any():
            what = f"hemisphere {' or '.join(self.hemispheres)}"
            what += f" and structure {' or '.join(self.structures)}" if self.structures else ""
            raise AtlasError(
                f"Atlas {atlas!r} has no region of {what}, which normalise_what asks for: give its "
                "hemispheres and structures (atlas_info), or choose another set."
            )
        ids: NDArray[np.int64] = table.index[inside].to_numpy(dtype=np.int64)
        return ids

    def donors(self, samples: pd.DataFrame) -> list[str]:
        """Donors that count, in the samples' order.

        Parameters
        ----------
        samples : pandas.DataFrame
            Prepared samples (``donor``, ``hemisphere``).

        Raises
        ------
        ChoiceError
            If there is none.
        """
        sides = samples.groupby("donor", sort=False)["hemisphere"].agg(set)
        kept = [str(donor) for donor, own in sides.items() if not self.both_sides or {"L", "R"} <= own]
        if not kept:
            raise ChoiceError(
                "normalise_what needs a donor with samples in both hemispheres (published are 9861 and "
                "10021): add one, or choose a set of the left hemisphere."
            )
        return kept


EVERYTHING = RegionSet(("L", "R", "B", ""))

REGION_SETS: dict[str | None, RegionSet] = {
    None: EVERYTHING,
    "Lcortex": RegionSet(("L",), ("cortex",)),
    "LcortexSubcortex": RegionSet(("L",)),
    "LcortexSubcortexSEPARATE": RegionSet(("L",), separate=True),
    "LRcortex": RegionSet(("L", "R"), ("cortex",), both_sides=True),
    "wholeBrain": RegionSet(("L", "R", "B", ""), both_sides=True),
}
"""``normalise_what`` -> the set; None takes all regions and donors."""
