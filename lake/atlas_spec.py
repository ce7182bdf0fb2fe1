"""What a person writes to name an atlas: ``[NAME=]ATLAS[@THRESHOLD | @LEFT,RIGHT][@MRI]``.

ATLAS is a name of the catalogue, a volume, ``LEFT,RIGHT`` label files or a CIFTI label file
(``FILE.dlabel.nii``, or ``FILE.dlabel.nii:2`` for its second map). After ``@`` stands the threshold of a
volume of probabilities, or the two surfaces that labels are on. Of atlases with ``{donor}`` in their path
another ``@`` may name each donor's MRI, with ``{donor}`` in it too.
"""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from transforms.errors import AtlasError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DONOR = "{donor}"


@dataclass(frozen=True)
class AtlasSpec:
    """The parts of a spec.

    Attributes
    ----------
    target : str
        Catalogue name, or path or paths as written.
    name : str
        What the person calls it, "" for the atlas's own name.
    threshold : float or None
    meshes : tuple of pathlib.Path
        The left and the right surface, or none.
    mri : str
        Image of each donor's MRI, "" if it is not named.
    """

    target: str
    name: str = ""
    threshold: float | None = None
    meshes: tuple[Path, ...] = ()
    mri: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """One path, or the left and the right one.

        Raises
        ------
        AtlasError
            If there are commas that do not part two paths.
        """
        if "," not in self.target or exists(self.target):
            return (Path(self.target),)
        return _pair(self.target, f"{self.target!r} is not two files: name a surface atlas as LEFT,RIGHT.")


def parse_spec(spec: str) -> AtlasSpec:
    """Take a spec apart; what exists as a file is that file, whatever letters it has.

    Of several @ the last one parts, unless another one does and what follows that is there: folders may have
    an @ in their names.

    Raises
    ------
    AtlasError
        If the name is not safe in a path, or what stands after ``@`` is no threshold and no two surfaces.
    """
    name, whole = _name_and_target(spec)
    target, mri = _target_and_mri(whole)
    before, at, option = _target_and_option(target)
    if exists(target) or not at or ("/" in option and "," not in option):
        return AtlasSpec(target, name, mri=mri)
    if not before:
        raise AtlasError(f"{spec!r} names no atlas before the @.")
    if "," in option:
        wrong = f"{option!r} is not two surfaces: name them as @LEFT.surf.gii,RIGHT.surf.gii."
        return AtlasSpec(before, name, meshes=_pair(option, wrong), mri=mri)
    return AtlasSpec(before, name, threshold=_threshold(option, spec), mri=mri)


def refuse_threshold(parsed: AtlasSpec) -> None:
    """Refuse a threshold where labels are on a surface.

    Raises
    ------
    AtlasError
    """
    if parsed.threshold is not None:
        raise AtlasError(f"{parsed.target} is a surface: a threshold goes with a volume of probabilities.")


def exists(path: str) -> bool:
    """Whether there is such a file; what cannot be a path is none."""
    try:
        return Path(path).exists()
    except OSError:  # too long for a name
        return False


def _name_and_target(spec: str) -> tuple[str, str]:
    name, equals, target = spec.partition("=")
    if not equals or exists(spec) or "/" in name:
        return "", spec
    if not re.fullmatch(NAME, name):
        raise AtlasError(
            f"{name!r} cannot name an atlas: begin with a letter or digit, and use only these, "
            "'.', '_' and '-', at most 100."
        )
    if not target:
        raise AtlasError(f"{spec!r} names no atlas after the =: write NAME=FILE.")
    return name, target


def files_of_pattern(pattern: str) -> list[str]:
    """Paths that are there for ``{donor}`` in a pattern."""
    return glob.glob(glob.escape(pattern).replace(DONOR, "*"))  # noqa: PTH207 - it may be absolute


def _splits(target: str) -> list[tuple[str, str]]:
    """What is before and after each @, the last one first."""
    places = [place for place, letter in enumerate(target) if letter == "@"]
    return [(target[:place], target[place + 1 :]) for place in reversed(places)]


def _target_and_mri(target: str) -> tuple[str, str]:
    if exists(target):
        return target, ""
    named = [
        (before, option)
        for before, option in _splits(target)
        if DONOR in before and DONOR in option and "," not in option
    ]
    there = [split for split in named if files_of_pattern(split[1])]
    guessed = [] if _at_surfaces(target) else named
    return next(iter([*there, *guessed]), (target, ""))


def _target_and_option(target: str) -> tuple[str, str, str]:
    """The atlas, the @ if there is one, and what follows it."""
    return _at_surfaces(target) or target.rpartition("@")


def _at_surfaces(target: str) -> tuple[str, str, str] | None:
    """The same where two surfaces follow that are there."""
    for before, option in _splits(target):
        if "," in option and all(files_of_pattern(part.strip()) for part in option.split(",")):
            return before, "@", option
    return None


def _pair(text: str, wrong: str) -> tuple[Path, Path]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise AtlasError(wrong)
    return Path(parts[0]), Path(parts[1])


def _threshold(text: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AtlasError(
            f"{text!r} in {spec!r} is neither a threshold, such as @25, nor two surfaces, "
            "@LEFT.surf.gii,RIGHT.surf.gii."
        ) from None
