"""Choosing the tissue samples: coordinates, mirroring, samples on the wrong side, dissimilar samples.

Coordinates in use are the published MNI152 ones or those corrected by non-linear registration
(alleninf). Four of the six donors were sampled in the left hemisphere only; mirroring copies samples
to the other side. Samples whose coordinate contradicts their structure's hemisphere are left out.
Sources: abagen (Markello et al. 2021, eLife 10:e72129); Romero-Garcia et al. 2018, NeuroImage 171:256.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from transforms.errors import ChoiceError

MIRRORS: dict[str | None, tuple[int, ...]] = {
    None: (),
    "leftright": (-1,),
    "rightleft": (1,),
    "bidirectional": (-1, 1),
}
"""``lr_mirror`` -> signs of mni_x of the samples to copy, in the order in which copies are appended."""

OPPOSITE = {"L": "R", "R": "L", "B": "B"}
SIDES = {"L": -1, "R": 1, "B": 0}
"""Hemisphere -> sign of mni_x of its samples; B is a structure without a hemisphere, on the midline."""

CORTEX, SUBCORTEX = "cortex", "subcortex/brainstem"
CORTEX_WORDS = (
    "cortex",
    "gyrus",
    "gyri",
    "sulcus",
    "occipital pole",
    "planum temporale",
    "cuneus",
    "frontal pole",
    "operculum",
    "planum polare",
    "temporal pole",
    "paracentral lobule",
)
"""What names a part of the cortex, for AHBAprocessing's ``listCortex``; the dentate gyrus is one too."""
CEREBRAL_CORTEX, HIPPOCAMPAL_FORMATION, CEREBRAL_NUCLEI, THALAMUS = 4008, 4249, 4275, 4392

MNI = ["mni_x", "mni_y", "mni_z"]
CORRECTED_MNI = [f"corrected_{axis}" for axis in MNI]

# Probes correlated at once by `similar_samples`: bounds its memory.
BLOCK_PROBES = 1024


def prepare_samples(
    samples: pd.DataFrame,
    ontology: pd.DataFrame,
    *,
    donors: Sequence[str],
    corrected_mni: bool,
    lr_mirror: str | None,
    check_sides: bool = True,
) -> pd.DataFrame:
    """Samples that a table is made of, with the coordinates in use, mirrored copies and sides checked.

    Parameters
    ----------
    samples : DataFrame
        All samples; row i is sample i of the microarray.
    ontology : DataFrame
        Structures, with ``structure_id``, ``acronym``, ``name``, ``hemisphere`` and ``structure``.
    donors : sequence of str
        Donors to use, in the order wanted.
    corrected_mni : bool
        Whether to use the corrected coordinates; see `use_coordinates`.
    lr_mirror : {None, "leftright", "rightleft", "bidirectional"}
        Which samples to copy to the other hemisphere; see `mirror`.
    check_sides : bool
        Whether to leave out samples on the wrong side; see `drop_mismatched`.

    Returns
    -------
    DataFrame
        Columns of ``samples`` and ``column``, the sample's position on the microarray, which copies
        repeat. Donors follow each other; a donor's own samples come before its copies.

    Raises
    ------
    ChoiceError
        If a donor or ``lr_mirror`` is unknown, a corrected coordinate is missing, or the ontology lacks
        a sample's structure or its mirror image.
    """
    unknown = sorted(set(donors) - set(samples["donor"]))
    if unknown or not donors:
        available = ", ".join(samples["donor"].unique())
        raise ChoiceError(f"Unknown donors {', '.join(unknown) or '(none chosen)'}: choose from {available}.")
    order = {donor: position for position, donor in enumerate(donors)}
    chosen = samples.assign(column=np.arange(len(samples)))[samples["donor"].isin(order)]
    placed = use_coordinates(chosen, corrected_mni=corrected_mni)
    mirrored = label_structures(mirror(placed, ontology, lr_mirror=lr_mirror), ontology)
    kept = drop_mismatched(mirrored) if check_sides else mirrored
    return kept.sort_values("donor", key=lambda donor: donor.map(order), kind="stable", ignore_index=True)


def use_coordinates(samples: pd.DataFrame, *, corrected_mni: bool) -> pd.DataFrame:
    """Put the coordinates in use into ``mni_x/y/z`` (mm).

    Parameters
    ----------
    samples : DataFrame
        With ``mni_*`` as published and ``corrected_mni_*``, NaN where unknown.
    corrected_mni : bool
        Whether to use the corrected coordinates.

    Returns
    -------
    DataFrame

    Raises
    ------
    ChoiceError
        If a sample has no corrected coordinates.
    """
    if not corrected_mni:
        return samples
    missing = samples[samples[CORRECTED_MNI].isna().any(axis=1)]
    if len(missing):
        wells = ", ".join(map(str, missing["well_id"].head(5)))
        raise ChoiceError(
            f"{len(missing)} samples of donor {', '.join(missing['donor'].unique())} have no corrected MNI "
            f"coordinates (well_id {wells}{', ..' if len(missing) > 5 else ''}): pass corrected_mni=False."
        )
    return samples.assign(**{axis: samples[f"corrected_{axis}"] for axis in MNI})


def mirror(samples: pd.DataFrame, ontology: pd.DataFrame, *, lr_mirror: str | None) -> pd.DataFrame:
    """Append copies of samples, reflected to the other hemisphere.

    A copy has ``mni_x`` negated and the structure with the same acronym in the other hemisphere; a
    structure without a hemisphere stays. Everything else, ``well_id`` included, stays the sample's own.

    Parameters
    ----------
    samples : DataFrame
        With ``mni_x`` in use.
    ontology : DataFrame
        As for `prepare_samples`.
    lr_mirror : {None, "leftright", "rightleft", "bidirectional"}
        Copy samples with x < 0, those with x > 0, or both (those with x < 0 first).

    Returns
    -------
    DataFrame
        The samples, then the copies, whose index repeats that of the samples.

    Raises
    ------
    ChoiceError
        If ``lr_mirror`` is unknown, or a copied sample's structure has no counterpart.
    """
    if lr_mirror not in MIRRORS:
        raise ChoiceError(f"Unknown lr_mirror {lr_mirror!r}: choose one of {', '.join(map(str, MIRRORS))}.")
    sign = np.sign(samples["mni_x"])
    copies = [_reflect(samples[sign == side], ontology) for side in MIRRORS[lr_mirror]]
    return pd.concat([samples, *copies])


def _reflect(samples: pd.DataFrame, ontology: pd.DataFrame) -> pd.DataFrame:
    """Reflect samples about the midline."""
    hemisphere = _ontology_rows(samples, ontology)["hemisphere"].map(OPPOSITE)
    wanted = pd.MultiIndex.from_arrays([samples["structure_acronym"], hemisphere])
    counterparts = ontology.set_index(["acronym", "hemisphere"])
    lacking = wanted[~wanted.isin(counterparts.index)]
    if len(lacking):
        acronym, side = lacking[0]
        raise ChoiceError(
            f"Structure {acronym!r} has no row for hemisphere {side} in the ontology, so its samples "
            f"cannot be mirrored: pass lr_mirror=None or repair the ontology."
        )
    found = counterparts.loc[wanted]
    return samples.assign(
        mni_x=-samples["mni_x"],
        structure_id=found["structure_id"].array,
        structure_name=found["name"].array,
    )


def label_structures(samples: pd.DataFrame, ontology: pd.DataFrame) -> pd.DataFrame:
    """Set ``hemisphere`` and ``structure`` (class) to those of each sample's ``structure_id``.

    Parameters
    ----------
    samples, ontology : DataFrame
        As for `prepare_samples`.

    Returns
    -------
    DataFrame

    Raises
    ------
    ChoiceError
        If the ontology lacks a sample's structure.
    """
    rows = _ontology_rows(samples, ontology)
    return samples.assign(
        hemisphere=rows["hemisphere"].array,
        structure=rows["structure"].array,
    )


def _ontology_rows(samples: pd.DataFrame, ontology: pd.DataFrame) -> pd.DataFrame:
    """Row of the ontology for each sample."""
    structures = ontology.set_index("structure_id")
    lacking = samples[~samples["structure_id"].isin(structures.index)]
    if len(lacking):
        well, structure = lacking[["well_id", "structure_id"]].iloc[0]
        raise ChoiceError(
            f"Structure {structure} of sample {well} is not in the ontology: use the ontology published "
            f"with the samples."
        )
    return structures.loc[samples["structure_id"]]


def drop_mismatched(samples: pd.DataFrame) -> pd.DataFrame:
    """Keep samples whose ``mni_x`` agrees with their ``hemisphere``: L x < 0, R x > 0, B x == 0.

    Parameters
    ----------
    samples : DataFrame
        With ``mni_x`` in use and ``hemisphere``.

    Returns
    -------
    DataFrame
        The rows kept.
    """
    return samples[np.sign(samples["mni_x"]) == samples["hemisphere"].map(SIDES)]


def drop_slabs(samples: pd.DataFrame, slab_types: Sequence[str]) -> pd.DataFrame:
    """Leave out samples from slabs of some types.

    Parameters
    ----------
    samples : DataFrame
        With ``slab_type``.
    slab_types : sequence of str
        A sample goes if its slab type contains one of them: "BS" brainstem, "CB" cerebellum.

    Returns
    -------
    DataFrame
        The rows kept, renumbered.

    Raises
    ------
    ChoiceError
        If no sample is left.
    """
    gone = np.zeros(len(samples), dtype=bool)
    for slab_type in slab_types:
        gone |= samples["slab_type"].str.contains(slab_type, regex=False).to_numpy(dtype=bool)
    if gone.all():
        raise ChoiceError(f"exclude_slabs={', '.join(slab_types)} leaves no sample: name fewer slab types.")
    return samples[~gone].reset_index(drop=True)


def divide_samples(
    samples: pd.DataFrame, ontology: pd.DataFrame, *, division: str, exclude_hippocampus: bool = False
) -> pd.DataFrame:
    """Divide samples by side and part of the brain, as step S3 of AHBAprocessing.

    Parameters
    ----------
    samples : DataFrame
        With ``structure_id`` and ``structure_name``.
    ontology : DataFrame
        With ``structure_id`` and ``structure_id_path``.
    division : {"listCortex", "ontology"}
        Cortex is what the structure's name says, and everything else is subcortex; or cortex is what the
        ontology puts below cerebral cortex (hippocampal formation included), subcortex what it puts below
        cerebral nuclei and thalamus, and the rest is neither.
    exclude_hippocampus : bool
        The hippocampal formation belongs to neither part.

    Returns
    -------
    DataFrame
        The samples with ``hemisphere`` "L" or "R" as the structure's name says and ``structure`` "cortex" or
        "subcortex/brainstem", each "" for a sample of no side or part.

    Raises
    ------
    ChoiceError
        If the ontology lacks a sample's structure.

    References
    ----------
    Arnatkeviciute et al. 2019, NeuroImage 189:353.
    """
    names = samples["structure_name"].reset_index(drop=True)
    paths = _ontology_rows(samples, ontology)["structure_id_path"].reset_index(drop=True)
    part = DIVISIONS[division](names, paths)
    if exclude_hippocampus:
        part = np.where(_is_below(paths, HIPPOCAMPAL_FORMATION), "", part)
    return samples.assign(hemisphere=_side(names), structure=part)


def _side(names: pd.Series) -> NDArray[np.object_]:
    left, right = (names.str.contains(side, regex=False).to_numpy(dtype=bool) for side in ("left", "right"))
    sides: NDArray[np.object_] = np.select([left & ~right, right & ~left], ["L", "R"], "").astype(object)
    return sides


def _part_by_name(names: pd.Series, paths: pd.Series) -> NDArray[np.object_]:  # noqa: ARG001
    cortex = [any(word in name for word in CORTEX_WORDS) for name in names]
    return np.where(cortex, CORTEX, SUBCORTEX).astype(object)


def _part_by_ontology(names: pd.Series, paths: pd.Series) -> NDArray[np.object_]:  # noqa: ARG001
    parts = [_is_below(paths, CEREBRAL_CORTEX), _is_below(paths, CEREBRAL_NUCLEI, THALAMUS)]
    return np.select(parts, [CORTEX, SUBCORTEX], "").astype(object)


def _is_below(paths: pd.Series, *structures: int) -> NDArray[np.bool_]:
    found = [
        paths.str.contains(f"/{structure}/", regex=False).to_numpy(dtype=bool) for structure in structures
    ]
    below: NDArray[np.bool_] = np.logical_or.reduce(found)
    return below


DIVISIONS: dict[str, Callable[[pd.Series, pd.Series], NDArray[np.object_]]] = {
    "listCortex": _part_by_name,
    "ontology": _part_by_ontology,
}
"""``divide_samples`` -> function of structures' names and paths that gives their part of the brain."""


def similar_samples(expression: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Mark a donor's samples that resemble its others enough (abagen's ``sim_threshold``).

    A sample's similarity is the sum of its Pearson correlations with all of the donor's samples, itself
    included. With z the samples' standardised profiles, that sum is z_i . (z_1 + .. + z_n), so the
    correlation matrix is never made.

    Parameters
    ----------
    expression : (probe, sample) float64 array
        Expression of one donor's kept samples, mirrored copies repeated.
    threshold : float
        Samples stay whose similarity is at least mean - threshold * std (ddof 1) over the samples.

    Returns
    -------
    (sample,) bool array
        False throughout if a sample is constant or has a NaN, because no correlation is defined then.
    """
    n_samples = expression.shape[1]
    mean, squares, similarity = expression.mean(axis=0), np.zeros(n_samples), np.zeros(n_samples)
    blocks = [slice(start, start + BLOCK_PROBES) for start in range(0, len(expression), BLOCK_PROBES)]
    for block in blocks:
        squares += np.square(expression[block] - mean).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        for block in blocks:
            standardised = (expression[block] - mean) / np.sqrt(squares)
            similarity += standardised.sum(axis=1) @ standardised
        spread = np.sqrt(np.square(similarity - similarity.mean()).sum() / np.float64(n_samples - 1))
        keep: NDArray[np.bool_] = similarity >= similarity.mean() - threshold * spread
    return keep
