"""The real abagen 0.1.3 as a peer to compare with, in an environment of its own.

abagen does not run on current numpy and pandas. :func:`peer_python` makes, once, a virtual environment
with the versions it runs on, and :func:`run_peer` runs it there on many cases at once
(``peer_script.py`` is the other side). An :class:`Outcome` is what one case gives, ours or abagen's;
:func:`assert_same` compares two of them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

LOGGER = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".peer"
SCRIPT = Path(__file__).with_name("peer_script.py")
INSTALLS = (
    ("setuptools<80", "numpy<1.24", "pandas<2", "scipy<1.12", "nibabel"),
    ("--no-deps", "abagen==0.1.3"),
)
OLDEST, NEWEST = (3, 8), (3, 11)  # the Pythons that have wheels of these versions


class PeerError(RuntimeError):
    """The peer's environment cannot be made, or the peer ended without a result."""


# The environment ------------------------------------------------------------------------------------


@cache
def peer_python() -> Path | None:
    """Python of an environment where abagen 0.1.3 runs; made on first use, kept in ``.peer/``.

    ``AHBA_PEER_PYTHON`` names another one, or ``none`` to do without.

    Returns
    -------
    pathlib.Path or None
        None, with the reason logged, where no such environment can be made (no network, no old Python).
    """
    try:
        return find_peer_python()
    except PeerError as error:
        LOGGER.warning("abagen cannot be run here: %s", error)
        return None


def find_peer_python() -> Path:
    """As :func:`peer_python`, but raises :class:`PeerError` with the reason."""
    named = os.environ.get("AHBA_PEER_PYTHON")
    if named == "none":
        raise PeerError("AHBA_PEER_PYTHON=none asks to do without it.")
    if not named:
        return make_environment(PEER)
    if not Path(named).is_file():
        raise FileNotFoundError(
            f"AHBA_PEER_PYTHON={named} is no file: name a Python that has abagen, or unset it."
        )
    return Path(named)


def make_environment(folder: Path) -> Path:
    """Make the environment below ``folder``, unless it is there already and whole; return its Python.

    Processes that ask at the same time wait for the one that makes it. The marker is written last, so
    an environment that was broken off is made anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python, marker = folder / "venv" / "bin" / "python", folder / "complete"
    content = json.dumps(INSTALLS)
    with FileLock(folder / "lock"):
        if not (marker.is_file() and marker.read_text() == content and python.exists()):
            marker.unlink(missing_ok=True)
            _create(folder / "venv")
            for requirements in INSTALLS:
                _checked([str(python), *_PIP, *requirements])
            _checked([str(python), "-I", "-W", "ignore", "-c", "import abagen"])
            marker.write_text(content)
    return python


_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2")


def _create(venv: Path) -> None:
    """Make an empty environment with the first old enough Python that can."""
    reasons = []
    for python in _old_pythons():
        shutil.rmtree(venv, ignore_errors=True)
        try:
            _checked([python, "-m", "venv", str(venv)])
        except PeerError as error:
            reasons.append(str(error))
        else:
            return
    raise PeerError(
        " ".join(reasons) or "no Python 3.8 to 3.11 was found, and abagen 0.1.3 runs on no newer one."
    )


def _old_pythons() -> Iterator[str]:
    """Yield the Pythons at hand that are old enough; some on the path may be empty shims."""
    for name in (sys.executable, "python3.11", "python3.10", "python3.9", "python3.8"):
        python = shutil.which(name)
        if python and _is_old(python):
            yield python


def _is_old(python: str) -> bool:
    check = f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def _checked(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command; a failure becomes a :class:`PeerError` that ends with what it said last."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise PeerError(f"`{' '.join(command)}` ended with {done.returncode}: " + " | ".join(said))


# Cases and outcomes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What one case gives.

    Attributes
    ----------
    expression : pandas.DataFrame
        Region x gene; indexed by (donor, region) where the case asks for ``return_donors``. A recorded
        outcome has the columns of some genes only.
    genes : tuple of str
        All genes of the table, in order.
    counts : pandas.DataFrame
        Region x donor, samples.
    chosen : dict of str to pandas.Series
        Per donor, the probe_id chosen for each gene symbol; empty where probes are averaged.
    labels : dict of str to pandas.Series
        Per donor, the region of each kept sample, by well_id (mirrored copies repeat it); 0 none.
    seconds, peak_bytes : float
        What it took.
    error : str
        The traceback, if it failed: everything else is empty then.
    """

    expression: pd.DataFrame = field(default_factory=pd.DataFrame)
    genes: tuple[str, ...] = ()
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)
    chosen: dict[str, pd.Series] = field(default_factory=dict)
    labels: dict[str, pd.Series] = field(default_factory=dict)
    seconds: float = float("nan")
    peak_bytes: float = float("nan")
    error: str = ""


def run_peer(
    cases: Sequence[Mapping[str, Any]], data_dir: Path, out: Path, *, parallel: int = 2
) -> dict[str, Outcome]:
    """Run abagen on every case, reading the files of ``data_dir`` once.

    Parameters
    ----------
    cases : sequence of dict
        ``name`` (also the name of the file it writes), ``kind`` ("expression"), ``atlas``
        (``{"image": path}``, ``{"image": [left, right]}`` or ``{"image": {donor: one of these}}``, and for
        donors' own surfaces ``mri`` and ``freesurfer``, {donor: path}), ``atlas_info``
        (path or None) and ``kwargs``, the further arguments of ``abagen.get_expression_data``.
    data_dir : pathlib.Path
        Holds ``normalized_microarray_donor<ID>/`` (and ``rnaseq_donor<ID>/``), or is abagen's own folder.
    out : pathlib.Path
        Folder for the peer's files.
    parallel : int
        Cases at a time. A single case runs alone, without any cache: as a user runs it.

    Returns
    -------
    dict of str to Outcome
        By case name, in the order of ``cases``.

    Raises
    ------
    PeerError
        If there is no peer, or it ended without a result.
    """
    command = peer_command(cases, data_dir, out, parallel=parallel)
    several = len(cases) > 1 and parallel > 1
    _checked(command, environment={**os.environ, "OPENBLAS_NUM_THREADS": "1"} if several else None)
    return {case["name"]: read_outcome(out / f"{case['name']}.npz") for case in cases}


def peer_command(
    cases: Sequence[Mapping[str, Any]], data_dir: Path, out: Path, *, parallel: int = 1
) -> list[str]:
    """Prepare ``out`` for the cases and return the command that runs them in the peer."""
    if len({case["name"] for case in cases}) != len(cases):
        raise ValueError("Two cases have the same name: give each its own.")
    out.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (out / f"{case['name']}.npz").unlink(missing_ok=True)
    cases_file = out / "cases.json"
    cases_file.write_text(json.dumps(list(cases), default=str), encoding="utf-8")
    linked = link_data(data_dir.resolve(), out.resolve() / "data")
    python = str(find_peer_python())
    return [python, "-I", "-W", "ignore", str(SCRIPT), str(cases_file), str(linked), str(out), str(parallel)]


def link_data(source: Path, target: Path) -> Path:
    """Lay out ``source`` as abagen's own data folder, by links below ``target``."""
    if (source / "microarray").is_dir():
        return source
    for name, pattern in (("microarray", "normalized_microarray_donor*"), ("rnaseq", "rnaseq_donor*")):
        for folder in sorted(source.glob(pattern)):
            link = target / name / folder.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
    return target


def read_outcome(path: Path) -> Outcome:
    """Read what the peer wrote for one case."""
    if not path.is_file():
        raise PeerError(
            f"abagen wrote no {path.name}: its process was killed, most likely for want of memory."
        )
    with np.load(path) as arrays:
        return outcome_of_arrays(dict(arrays))


def outcome_of_arrays(arrays: Mapping[str, np.ndarray]) -> Outcome:
    """Return the outcome that ``peer_script.py``, or :func:`arrays_of_outcome`, wrote."""
    seconds, peak_bytes = (float(arrays.get(name, np.nan)) for name in ("seconds", "peak_bytes"))
    if "error" in arrays:
        return Outcome(error=str(arrays["error"]), seconds=seconds, peak_bytes=peak_bytes)
    donors, regions = [str(donor) for donor in arrays["donors"]], pd.Index(arrays["regions"], name="region")
    expression = _expression(arrays, donors, regions)
    return Outcome(
        expression=expression,
        genes=tuple(str(gene) for gene in arrays.get("all_genes", np.asarray(expression.columns))),
        counts=pd.DataFrame(arrays["counts"], index=regions, columns=donors),
        chosen=_by_donor(arrays, donors, values="probe_ids", index="probe_genes"),
        labels=_by_donor(arrays, donors, values="labels", index="label_wells"),
        seconds=seconds,
        peak_bytes=peak_bytes,
    )


def _by_donor(
    arrays: Mapping[str, np.ndarray], donors: list[str], *, values: str, index: str
) -> dict[str, pd.Series]:
    """Return the series of each donor that has one."""
    return {
        donor: pd.Series(arrays[f"{values}_{donor}"], index=_plain(arrays[f"{index}_{donor}"]))
        for donor in donors
        if f"{values}_{donor}" in arrays
    }


def _plain(names: np.ndarray) -> np.ndarray:
    """Return text as Python strings, which every pandas takes alike; numbers as they are."""
    return names.astype(object) if names.dtype.kind == "U" else names


def _expression(arrays: Mapping[str, np.ndarray], donors: list[str], regions: pd.Index) -> pd.DataFrame:
    if "expression" in arrays:
        return pd.DataFrame(arrays["expression"], index=regions, columns=_plain(arrays["genes"]))
    tables = {
        donor: pd.DataFrame(
            arrays[f"expression_{donor}"], index=regions, columns=_plain(arrays[f"genes_{donor}"])
        )
        for donor in donors
    }
    return pd.concat(tables, names=["donor"])


def arrays_of_outcome(outcome: Outcome, *, n_genes: int) -> dict[str, np.ndarray]:
    """Return the part of an outcome worth keeping in a small file.

    Everything but the values is kept whole; of the values, the columns of ``n_genes`` genes spread
    evenly over the table. Chosen probes are kept for the first donor (they are all donors' where
    donors are pooled), labels are left out.
    """
    columns = np.unique(np.linspace(0, len(outcome.genes) - 1, n_genes).round().astype(int))
    values = outcome.expression.iloc[:, columns]
    arrays = {
        "donors": np.asarray(outcome.counts.columns, dtype=str),
        "regions": np.asarray(outcome.counts.index),
        "genes": np.asarray(values.columns, dtype=str),
        "all_genes": np.asarray(outcome.genes, dtype=str),
        "expression": np.asarray(values),
        "counts": np.asarray(outcome.counts, dtype=np.int16),
    }
    for donor, chosen in list(outcome.chosen.items())[:1]:
        arrays[f"probe_genes_{donor}"] = np.asarray(chosen.index, dtype=str)
        arrays[f"probe_ids_{donor}"] = np.asarray(chosen, dtype=np.int64)
    return arrays


# Comparing ------------------------------------------------------------------------------------------


def assert_same(ours: Outcome, theirs: Outcome, *, rtol: float = 1e-8, atol: float = 0.0) -> float:
    """Check that regions, genes, counts and chosen probes are identical and that values agree.

    Compared is what ``theirs`` holds: all genes' values, or those of the genes that were recorded. The
    regions of samples are compared where both hold them.

    Returns
    -------
    float
        The largest relative difference of a value.

    Raises
    ------
    AssertionError
        That says what differs first.
    """
    for side, outcome in (("ours", ours), ("abagen's", theirs)):
        if outcome.error:
            raise AssertionError(f"{side} failed:\n{outcome.error}")
    _same_names("regions", list(ours.expression.index), list(theirs.expression.index))
    _same_names("genes", list(ours.genes), list(theirs.genes))
    _same_names("regions counted", list(ours.counts.index), list(theirs.counts.index))
    _same_names("donors", [str(donor) for donor in ours.counts.columns], list(theirs.counts.columns))
    np.testing.assert_array_equal(ours.counts.to_numpy(), theirs.counts.to_numpy(), err_msg="counts")
    for donor, chosen in theirs.chosen.items():
        names = f"genes with a probe (donor {donor})"
        _same_values(names, f"probes chosen otherwise (donor {donor})", ours.chosen[donor], chosen)
    for donor in sorted(ours.labels.keys() & theirs.labels.keys()):  # the recording has none
        names = f"samples kept (donor {donor})"
        kept = ours.labels[donor], theirs.labels[donor]
        _same_values(names, f"samples in another region (donor {donor})", *kept)
    our_values = ours.expression[list(theirs.expression.columns)].to_numpy()
    their_values = theirs.expression.to_numpy()
    np.testing.assert_allclose(our_values, their_values, rtol=rtol, atol=atol, err_msg="expression")
    return largest_relative_difference(our_values, their_values)


def _same_names(what: str, ours: list[Any], theirs: list[Any]) -> None:
    if ours == theirs:
        return
    only_ours, only_theirs = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    raise AssertionError(
        f"{what} differ: {len(ours)} ours, {len(theirs)} abagen's; only ours {only_ours[:10]}, "
        f"only abagen's {only_theirs[:10]}" + ("" if only_ours or only_theirs else " (another order)")
    )


def _same_values(names: str, differing: str, ours: pd.Series, theirs: pd.Series) -> None:
    _same_names(names, list(ours.index), list(theirs.index))
    differ = ours.to_numpy() != theirs.to_numpy()
    if differ.any():
        rows = zip(theirs.index[differ], ours[differ], theirs[differ], strict=True)
        shown = "; ".join(f"{name}: {our} for {their}" for name, our, their in list(rows)[:10])
        raise AssertionError(f"{differ.sum()} {differing}: {shown}")


def largest_relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return max |ours - theirs| / |theirs|, where the two differ at all; 0.0 if nowhere."""
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(ours - theirs) / np.abs(theirs)
    return float(np.max(relative, where=(ours != theirs) & ~np.isnan(relative), initial=0.0))
