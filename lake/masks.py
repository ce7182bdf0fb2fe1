"""Samples inside a mask, and dense maps of genes, from a store and into images."""

import difflib
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from nibabel.gifti.gifti import GiftiDataArray, GiftiMetaData
from numpy.typing import NDArray

from lake.atlas_files import safe_name
from lake.errors import RequestError
from lake.manifest import software_versions
from lake.runs import AtlasLike, Progress, load_any
from lake.sources import source_for, source_of
from lake.store import Lake
from lake.tables import written_aside
from transforms.atlas import Atlas
from transforms.atlas_set import AnyAtlas, AtlasSet
from transforms.masks import MaskedSamples, interpolate_nodes, masked_samples, on_grid
from transforms.pipeline import Pipeline
from transforms.samples import MNI, use_coordinates
from transforms.values import FreshValues
from transforms.workflow import Genes, select_genes

Floats = NDArray[np.float64]

OF_REGIONS = ("missing", "region_agg", "agg_metric")
WHOLE_BRAIN: Mapping[str, Any] = MappingProxyType({"norm_matched": False})
"""Choice -> its default for samples in a mask, where it is not `Pipeline`'s."""
MIRRORED: Mapping[str, Any] = MappingProxyType({**WHOLE_BRAIN, "lr_mirror": "bidirectional"})
"""The same for dense maps."""
PLACES = [
    *("well_id", "donor", "structure_id", "structure_acronym", "structure_name"),
    *("hemisphere", "structure", *MNI),
]
"""What a table of samples in a mask says of each of them; ``mni_x/y/z`` in mm are the coordinates in use."""
VOLUME_SUFFIXES, SURFACE_SUFFIX = (".nii", ".nii.gz"), ".func.gii"
SIDES = ("lh", "rh")
HEMISPHERES = ("CortexLeft", "CortexRight")


@dataclass(frozen=True, eq=False)
class DenseMaps(Mapping[str, Floats]):
    """Maps of genes: a mapping of gene symbol to an array in the shape of the mask's image, 0 outside.

    Attributes
    ----------
    mask : Atlas
    values : pandas.DataFrame
        Node of the mask x gene symbol.
    provenance : dict
    """

    mask: Atlas
    values: pd.DataFrame = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    def __getitem__(self, gene: str) -> Floats:
        return on_grid(self.mask, self.values[gene].to_numpy())

    def __iter__(self) -> Iterator[str]:
        return iter(self.values.columns)

    def __len__(self) -> int:
        return len(self.values.columns)


def samples_in_mask(
    store: Lake,
    mask: AtlasLike | None = None,
    *,
    genes: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> MaskedSamples:
    """Normalised expression of the samples inside a mask.

    Parameters
    ----------
    store : Lake
    mask : str, path, Atlas or AtlasSet, optional
        As the atlas of `lake.expression`; what is not 0 is inside. All samples if left out.
    genes : str or sequence of str, optional
        Gene symbols; all genes if left out.
    progress : callable, optional
        Called with ("steps", steps done, steps in all).
    **choices
        Fields of `Pipeline`; genes are normalised over all samples unless ``norm_matched=True``. Those that
        average samples into regions are refused.

    Returns
    -------
    MaskedSamples
        ``expression``, sample x gene, and the ``samples``, which lie at ``mni_x/y/z``: for mirrored copies
        their own place, where abagen gives that of the original. With donors' own masks these are MNI
        coordinates too.

    Raises
    ------
    ChoiceError, AtlasError, RequestError
        If a choice, a gene, the mask or a donor is wrong, or no sample is inside.
    """
    pipeline = _pipeline({**WHOLE_BRAIN, **choices})
    atlas = None if mask is None else load_any(mask)
    _refuse_mirrored_natives(atlas, pipeline)
    donors = store.resolve_donors(pipeline.donors)
    source = source_for(source_of(store), atlas, donors)
    tell = _Steps(progress, 2)
    chosen = select_genes(source, pipeline, donors)
    wanted = None if genes is None else _positions([genes] if isinstance(genes, str) else list(genes), chosen)
    tell.step()
    found = masked_samples(chosen, FreshValues(source, chosen, pipeline), atlas, pipeline, wanted=wanted)
    found.expression.attrs = _provenance(store, atlas, pipeline)
    tell.step()
    if not isinstance(atlas, AtlasSet):
        return found
    placed = use_coordinates(
        store.samples.iloc[found.samples["column"]], corrected_mni=pipeline.corrected_mni
    )
    return found._replace(samples=found.samples.assign(**{axis: placed[axis].to_numpy() for axis in MNI}))


def masked_table(store: Lake, mask: AtlasLike | None = None, **options: Any) -> pd.DataFrame:
    """The result of `samples_in_mask` as one table: a row a sample, `PLACES`, then a column a gene.

    Parameters
    ----------
    store, mask, **options
        As for `samples_in_mask`.

    Returns
    -------
    pandas.DataFrame
        Its ``attrs`` hold the provenance.
    """
    found = samples_in_mask(store, mask, **options)
    places, values = found.samples[PLACES], found.expression.reset_index(drop=True)
    table = pd.concat([places, values], axis=1)
    table.attrs = found.expression.attrs
    return table


def interpolated_map(
    store: Lake,
    genes: str | Sequence[str],
    mask: AtlasLike,
    *,
    n_neighbors: int = 10,
    progress: Progress | None = None,
    **choices: Any,
) -> DenseMaps:
    """Estimate genes' expression in every voxel or vertex of a mask from the samples nearest to it.

    Parameters
    ----------
    store : Lake
    genes : str or sequence of str
        Gene symbols.
    mask : str, path or Atlas
        As the atlas of `lake.expression`; what is not 0 is filled.
    n_neighbors : int
        How many samples make a node's mean, weighted by 1/distance.
    progress : callable, optional
        Called with ("steps", steps done, steps in all).
    **choices
        As for `samples_in_mask`; ``lr_mirror`` is "bidirectional" unless given. abagen leaves the mirrored
        copies at the place of their originals, where they only stand in for neighbours; equal maps come
        with ``lr_mirror=None``.

    Returns
    -------
    DenseMaps

    Raises
    ------
    ChoiceError, AtlasError, RequestError
        If a choice, a gene, the mask or a donor is wrong.
    """
    pipeline = _pipeline({**MIRRORED, **choices})
    atlas = load_any(mask)
    if isinstance(atlas, AtlasSet):
        raise RequestError("A dense map is made in one space for all donors: give one mask, not one a donor.")
    tell = _Steps(progress, 3)
    source = source_of(store)
    chosen = select_genes(source, pipeline, store.resolve_donors(pipeline.donors))
    tell.step()
    wanted = _positions([genes] if isinstance(genes, str) else list(genes), chosen)
    everywhere = masked_samples(chosen, FreshValues(source, chosen, pipeline), None, pipeline, wanted=wanted)
    values = everywhere.expression
    tell.step()
    places = everywhere.samples[MNI].to_numpy(dtype=np.float64)
    nodes = interpolate_nodes(values.to_numpy(), places, atlas.coordinates, n_neighbors=n_neighbors)
    tell.step()
    origin = {**_provenance(store, atlas, pipeline), "n_neighbors": n_neighbors}
    return DenseMaps(atlas, pd.DataFrame(nodes, columns=values.columns), origin)


def write_maps(maps: DenseMaps, path: str | Path, *, progress: Progress | None = None) -> list[Path]:
    """Write each map as an image, with its provenance as JSON beside it; whole or not at all.

    Parameters
    ----------
    maps : DenseMaps
    path : str or pathlib.Path
        With ``{gene}`` in it where there are several, for which the symbol stands, in letters that are safe
        in a path. A volume is a ``.nii`` or ``.nii.gz``; a surface a ``.func.gii``, which becomes
        ``_lh.func.gii`` and ``_rh.func.gii`` (float32, as GIFTI has it).
    progress : callable, optional
        Called with ("maps", maps written, maps in all).

    Returns
    -------
    list of pathlib.Path
        The images.

    Raises
    ------
    RequestError
        If the suffix is another, or several genes would have one name.
    """
    suffix = check_map_path(path, maps.mask, len(maps))
    names = _names_of(maps)
    written = []
    for done, gene in enumerate(maps, start=1):
        stem = str(path).removesuffix(suffix).replace("{gene}", names[gene])
        images = _volume(maps, gene, suffix) if maps.mask.kind == "volume" else _surfaces(maps, gene)
        _write(Path(stem + ".json"), _json({**maps.provenance, "gene_symbol": gene}))
        for end, content in images.items():  # after its origin, without which it is not there
            written.append(Path(stem + end))
            _write(written[-1], content)
        if progress:
            progress("maps", done, len(maps))
    return written


def check_map_path(path: str | Path, mask: Atlas, n_genes: int) -> str:
    """Suffix of the images to write; see `write_maps`.

    Raises
    ------
    RequestError
        If the suffix is another, or several genes would have one name.
    """
    if n_genes > 1 and "{gene}" not in str(path):
        raise RequestError(f"{path} names one file for {n_genes} genes: put {{gene}} into it.")
    return _suffix(str(path), mask)


def _names_of(genes: Iterable[str]) -> dict[str, str]:
    """Each gene's symbol in letters that are safe in a path: some have a slash.

    Raises
    ------
    RequestError
        If two of them are then the same.
    """
    owners: dict[str, str] = {}
    for gene in genes:
        if (first := owners.setdefault(safe_name(gene), gene)) != gene:
            raise RequestError(f"{first} and {gene} would have one file name: write them one by one.")
    return {gene: name for name, gene in owners.items()}


class _Steps:
    """Tells how many of the steps of a computation are done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def step(self) -> None:
        self._done += 1
        if self._progress:
            self._progress("steps", self._done, self._total)


def _pipeline(choices: Mapping[str, Any]) -> Pipeline:
    """The choices, among which are none on regions."""
    if given := [name for name in OF_REGIONS if name in choices]:
        raise RequestError(
            f"{', '.join(given)} averages samples into regions; a mask has none: leave it out."
        )
    return Pipeline.from_choices(choices)


def _refuse_mirrored_natives(mask: AnyAtlas | None, pipeline: Pipeline) -> None:
    if isinstance(mask, AtlasSet) and pipeline.lr_mirror is not None:
        raise RequestError(
            f"lr_mirror={pipeline.lr_mirror!r} with donors' own masks: a copy mirrored in native space has "
            "no MNI coordinates; choose lr_mirror=None or one mask in MNI152."
        )


def _positions(symbols: list[str], genes: Genes) -> NDArray[np.intp]:
    """Where the genes are among those of the selection, in the order asked for, each once."""
    known = pd.Index(genes.selection.genes["gene_symbol"])
    if not symbols:
        raise RequestError("No gene is asked for: name at least one.")
    for symbol in symbols:
        if symbol not in known:
            near = difflib.get_close_matches(symbol, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise RequestError(
                f"Gene {symbol!r} is not among the {len(known):,} that these choices leave{meant}"
            )
    return np.asarray(known.get_indexer(pd.unique(pd.Index(symbols))), dtype=np.intp)


def _provenance(store: Lake, mask: AnyAtlas | None, pipeline: Pipeline) -> dict[str, Any]:
    described = mask and {"name": mask.name, "space": mask.space, "fingerprint": mask.fingerprint}
    return {
        **store.manifest.provenance(),
        "pipeline": pipeline.identity(store.snapshot),
        "parameters": pipeline.parameters(),
        "donors": store.resolve_donors(pipeline.donors),
        "software": software_versions(),
        "mask": described,
    }


# ---- images ----


def _suffix(path: str, mask: Atlas) -> str:
    accepted = VOLUME_SUFFIXES if mask.kind == "volume" else (SURFACE_SUFFIX,)
    for suffix in sorted(accepted, key=len, reverse=True):
        if path.endswith(suffix):
            return suffix
    raise RequestError(f"{path}: a map on a {mask.kind} is written as {' or '.join(accepted)}.")


def _volume(maps: DenseMaps, gene: str, suffix: str) -> dict[str, bytes]:
    image = nibabel.Nifti1Image(maps[gene], maps.mask.affine)
    image.header["descrip"] = f"ahba-lake map of {gene}, pipeline {maps.provenance['pipeline']}"[:79].encode()
    content = image.to_bytes()
    return {suffix: gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content}


def _surfaces(maps: DenseMaps, gene: str) -> dict[str, bytes]:
    halves = np.split(maps[gene].astype(np.float32), [maps.mask.n_left])
    images = {}
    for side, structure, values in zip(SIDES, HEMISPHERES, halves, strict=True):
        array = GiftiDataArray(values, intent="NIFTI_INTENT_SHAPE", datatype="NIFTI_TYPE_FLOAT32")
        facts = {
            "AnatomicalStructurePrimary": structure,
            "Description": f"ahba-lake map of {gene}, pipeline {maps.provenance['pipeline']}",
        }
        image = nibabel.GiftiImage(darrays=[array], meta=GiftiMetaData(facts))
        images[f"_{side}{SURFACE_SUFFIX}"] = image.to_bytes()
    return images


def _write(path: Path, content: bytes) -> None:
    with written_aside(path) as aside:
        aside.write_bytes(content)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
