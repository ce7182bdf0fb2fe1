"""Run the real abagen; executed by the Python of the peer environment, never by ours.

``python -I peer_script.py CASES.json DATA_DIR OUT PARALLEL``

CASES.json is a list of cases as :func:`tests.peer.run_peer` describes them, DATA_DIR is laid out as abagen
wants it. Every case writes ``OUT/<name>.npz`` with

=====================  ==================================================================
``donors``             (D,) donors in abagen's order
``regions``            (R,) region ids
``genes``              (G,) gene symbols
``expression``         (R, G) values
``counts``             (R, D) samples
``probe_genes_<d>``    (K,) gene symbols after probe selection, sorted; one pair a donor
``probe_ids_<d>``      (K,) the probe that stands for each (absent where probes are averaged)
``label_wells_<d>``    (S,) well ids of the samples kept, in abagen's order
``labels_<d>``         (S,) the region each was assigned to, 0 none
``seconds``            wall time of ``get_expression_data``
``peak_bytes``         peak resident memory of the process that ran it
=====================  ==================================================================

``expression_<d>`` and ``genes_<d>`` take the place of ``expression`` and ``genes`` where the case asks for
``return_donors``; a case that fails writes ``error``, the traceback as text, and the last two keys only.

The numbers are abagen's own: functions are wrapped to note what passes through them. What is changed,
because abagen 0.1.3 cannot do without: probes that the data lack leave the re-annotation table, RNA-seq
is read from DATA_DIR, a donor's T1, asked for its affine alone, and the donor's FreeSurfer folder are those
of the case (without them the T1 is the donor's atlas), and the network is closed.

The syntax is that of Python 3.8.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import multiprocessing.connection
import resource
import socket
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any, Callable  # noqa: UP035  (Python 3.8 wants it from here)

import abagen
import numpy as np
import pandas as pd
from abagen import datasets, io, matching, probes_, transforms


class Notes:
    """What abagen does not return: the probes it chose and the region of every sample."""

    def __init__(self) -> None:
        self.symbols = pd.Series(dtype=object)
        self.chosen: dict[Any, np.ndarray] = {}
        self.labels: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(self) -> None:
        """Wrap the three places where the choices pass by."""
        probes_._groupby_and_apply = self._watch_selection(probes_._groupby_and_apply)
        probes_.sstats = types.SimpleNamespace(mode=self._watch_mode(probes_.sstats.mode))
        matching.AtlasTree.label_samples = self._watch_labels(matching.AtlasTree.label_samples)

    def _watch_selection(self, select: Callable[..., Any]) -> Callable[..., Any]:
        def watched(expression: Any, probes: pd.DataFrame, info: Any, applyfunc: Any) -> Any:
            selected = select(expression, probes, info, applyfunc)
            self.symbols = probes["gene_symbol"]
            self.chosen.update({donor: np.asarray(table.columns) for donor, table in selected.items()})
            return selected

        return watched

    def _watch_mode(self, mode: Callable[..., Any]) -> Callable[..., Any]:
        """``donor_probes="common"``: the mode over the donors replaces what each donor chose."""

        def watched(probe_ids: Any, axis: int) -> Any:
            found = mode(probe_ids, axis=axis)
            common = np.atleast_1d(np.squeeze(found[0]))
            self.chosen = dict.fromkeys(self.chosen, common)
            return found

        return watched

    def _watch_labels(self, label: Callable[..., Any]) -> Callable[..., Any]:
        def watched(tree: Any, annotation: pd.DataFrame, tolerance: float = 2) -> pd.DataFrame:
            labels = label(tree, annotation, tolerance)
            self.labels.append((np.asarray(annotation["well_id"]), np.asarray(labels["label"])))
            return labels

        return watched

    def arrays(self, donors: list[str]) -> dict[str, np.ndarray]:
        """Return the notes under the names of the module's docstring."""
        arrays: dict[str, np.ndarray] = {}
        for donor, (wells, labels) in zip(donors, self.labels):  # noqa: B905  (Python 3.8 has no `strict`)
            arrays["label_wells_" + donor], arrays["labels_" + donor] = wells, labels
        for donor, probe_ids in self.chosen.items():
            chosen = self.symbols.loc[probe_ids].sort_values()
            arrays["probe_genes_" + donor] = strings(chosen)
            arrays["probe_ids_" + donor] = np.asarray(chosen.index, dtype=np.int64)
        return arrays


def strings(values: Any) -> np.ndarray:
    """Return text as a numpy array that needs no pickle."""
    return np.asarray([str(value) for value in values], dtype=str)


def keep_known_probes(reannotate: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Turn the left join of the re-annotation into an inner one: the same on the full set of probes."""

    def inner(probes: Any) -> pd.DataFrame:
        table = reannotate(probes)
        table = table[table.index.notna()]
        return table.set_axis(pd.Index(table.index, dtype="int64", name="probe_id"), axis=0)

    return inner


def remember(read: Callable[..., pd.DataFrame]) -> Callable[..., pd.DataFrame]:
    """Read each file once. Callers get the same table; each case runs in a fork, so none sees another's."""
    tables: dict[str, pd.DataFrame] = {}

    @functools.wraps(read)
    def once(source: Any, *args: Any, **kwargs: Any) -> pd.DataFrame:
        if not isinstance(source, str):
            return read(source, *args, **kwargs)
        if source not in tables:
            tables[source] = read(source, *args, **kwargs)
        return tables[source]

    return once


def load_once(cases: list[dict[str, Any]], data_dir: str) -> None:
    """Read the matrices of every donor that a case needs, before the forks."""
    io.read_microarray, io.read_pacall = remember(io.read_microarray), remember(io.read_pacall)
    donors: set[str] = set()
    for case in cases:
        donors.update(datasets.check_donors(case["kwargs"].get("donors", "all")))
    for files in datasets.fetch_microarray(data_dir=data_dir, donors=sorted(donors), verbose=0).values():
        io.read_microarray(files["microarray"])
        io.read_pacall(files["pacall"])


def refuse_connection(*args: Any, **kwargs: Any) -> None:
    raise OSError("the peer has no network: the case asks for a file that is not there")


def mend(data_dir: str) -> None:
    """Make the changes that the module's docstring names, but for `lend_files`."""
    socket.getaddrinfo = socket.socket.connect = refuse_connection
    probes_.reannotate_probes = keep_known_probes(probes_.reannotate_probes)
    datasets.fetch_rnaseq = functools.partial(datasets.fetch_rnaseq, data_dir=data_dir)


def lend_files(atlas: dict[str, Any]) -> None:
    """Where each donor has an atlas of its own: give abagen the donor's files that it would download."""
    image = atlas["image"]
    if isinstance(image, dict):
        mri = atlas.get("mri", image)
        datasets.fetch_raw_mri = lambda donors, **kwargs: {donors: {"t1w": mri[donors]}}
    if "freesurfer" in atlas:
        folders = functools.partial(freesurfer_folder, atlas["freesurfer"])
        datasets.fetchers.fetch_freesurfer = transforms.fetch_freesurfer = folders


def freesurfer_folder(folders: dict[str, str], donors: str, **kwargs: Any) -> dict[str, str]:
    """As ``fetch_freesurfer`` of one donor."""
    return {donors: folders[donors]}


def image_of(image: Any) -> Any:
    """Return the atlas as abagen takes it: a surface is a tuple."""
    if isinstance(image, dict):
        return {donor: image_of(one) for donor, one in image.items()}
    return tuple(image) if isinstance(image, list) else image


def expression_arrays(expression: Any) -> dict[str, np.ndarray]:
    """Return the (R, G) table, or the table of each donor, as arrays."""
    if isinstance(expression, pd.DataFrame):
        expression = {"": expression}
    arrays: dict[str, np.ndarray] = {}
    for donor, table in expression.items():
        suffix = "_" + donor if donor else ""
        arrays["regions"] = np.asarray(table.index, dtype=np.int64)
        arrays["genes" + suffix] = strings(table.columns)
        arrays["expression" + suffix] = np.asarray(table, dtype=np.float64)
    return arrays


def region_expression(case: dict[str, Any], data_dir: str, clock: dict[str, float]) -> dict[str, np.ndarray]:
    """``kind="expression"``: ``get_expression_data``."""
    notes = Notes()
    notes.watch()
    lend_files(case["atlas"])
    clock["start"] = time.perf_counter()
    expression, counts = abagen.get_expression_data(
        image_of(case["atlas"]["image"]),
        case["atlas_info"],
        data_dir=data_dir,
        return_counts=True,
        **case["kwargs"],
    )
    clock["stop"] = time.perf_counter()
    donors = [str(donor) for donor in counts.columns]
    return {
        "donors": strings(donors),
        "counts": np.asarray(counts, dtype=np.int64),
        **expression_arrays(expression),
        **notes.arrays(donors),
    }


KINDS = {"expression": region_expression}


def run_case(case: dict[str, Any], data_dir: str, out: str) -> None:
    """Run one case and write its arrays; a failure is a result too."""
    clock = {"start": time.perf_counter()}
    try:
        arrays = KINDS[case["kind"]](case, data_dir, clock)
    except Exception:  # noqa: BLE001  (whatever abagen raises is what the comparison wants to know)
        arrays = {"error": np.asarray(traceback.format_exc())}
    arrays["seconds"] = np.asarray(clock.get("stop", time.perf_counter()) - clock["start"])
    unit = 1 if sys.platform == "darwin" else 1024
    arrays["peak_bytes"] = np.asarray(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    np.savez(Path(out) / (case["name"] + ".npz"), **arrays)


def run_in_forks(cases: list[dict[str, Any]], data_dir: str, out: str, parallel: int) -> None:
    """Run each case in a process of its own, ``parallel`` at a time, over tables that all share."""
    fork = multiprocessing.get_context("fork")
    waiting, running = list(cases), []
    while waiting or running:
        while waiting and len(running) < parallel:
            process = fork.Process(target=run_case, args=(waiting.pop(0), data_dir, out))
            process.start()
            running.append(process)
        multiprocessing.connection.wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]


def main(cases_file: str, data_dir: str, out: str, parallel: str) -> None:
    cases = json.loads(Path(cases_file).read_text(encoding="utf-8"))
    mend(data_dir)
    if len(cases) == 1:  # as a user runs it, which is also what the benchmark measures
        run_case(cases[0], data_dir, out)
        return
    load_once(cases, data_dir)
    run_in_forks(cases, data_dir, out, int(parallel))


if __name__ == "__main__":
    main(*sys.argv[1:])
