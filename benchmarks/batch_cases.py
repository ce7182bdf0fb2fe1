"""The runs that ``benchmarks/batch.py`` measures: which atlases, which pipelines, and what is kept of them.

``python benchmarks/batch_cases.py REQUEST`` carries one out, so that it has a process of its own; the request
is JSON, see `Case`. It prints what it took as one line of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import lake  # noqa: E402
from benchmarks.against_abagen import IMAGE, INFO  # noqa: E402
from ingest.reference import reference_file  # noqa: E402
from lake.errors import RunError  # noqa: E402
from lake.grids import MULTIVERSE  # noqa: E402
from lake.plan import KINDS  # noqa: E402
from lake.reductions import Reduction  # noqa: E402
from lake.resources import peak_memory  # noqa: E402

DK, DK_SURFACE = "abagen:dk", "abagen:dk-surface"
FARTHEST = 2  # voxels, 1 mm each, that an atlas like DK is moved along an axis
AFTER_VALUES = ("assignment", "normalisation", "tables")  # stages that a family of pipelines differs in
N_MODULES, N_IN_MODULES, DROP_SMALLEST = 23, 5000, 7


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run.

    Attributes
    ----------
    store, out : str
        Where it reads, and writes.
    atlases, pipelines : tuple
        A name of `ATLASES`, `PIPELINES`, and the numbers that go with it.
    analyses : bool
        Whether the three analyses of the published multiverse are computed, and no table is kept.
    workers, memory_limit : optional
        As `lake.run` takes them.
    cores : int, optional
        Cores that the process may use at all.
    """

    store: str = ""
    out: str = ""
    atlases: tuple[Any, ...] = ("dk",)
    pipelines: tuple[Any, ...] = ("default",)
    analyses: bool = False
    workers: int | None = None
    memory_limit: str | None = None
    cores: int | None = None


# Atlases --------------------------------------------------------------------------------------------


def volume() -> tuple[nibabel.Nifti1Image, pd.DataFrame]:
    """Return the Desikan-Killiany volume and its table of regions."""
    return nibabel.Nifti1Image.from_filename(reference_file(IMAGE)), pd.read_csv(reference_file(INFO))


def moved(move: tuple[int, ...], name: str) -> lake.Atlas:
    """Return DK with its volume moved by some voxels: other samples fall into its regions."""
    image, info = volume()
    labels = np.roll(np.asarray(image.dataobj), move, axis=(0, 1, 2))
    return lake.Atlas.from_volume(nibabel.Nifti1Image(labels, image.affine), info, name=name)


def alike(count: int) -> list[Callable[[], lake.Atlas]]:
    """Return atlases like DK, each made when its turn comes; the first is DK."""
    moves = list(itertools.product(range(-FARTHEST, FARTHEST + 1), repeat=3))
    moves.sort(key=lambda move: (sum(map(abs, move)), move))
    if count > len(moves):
        raise SystemExit(f"There are {len(moves)} atlases like DK: ask for as many at most.")
    return [partial(moved, move, f"like-{number}") for number, move in enumerate(moves[:count])]


def real(count: int) -> list[str]:
    """Return atlases of the extra ``atlases`` in group space, by name."""
    names = [
        entry.name
        for entry in lake.atlases()
        if entry.installed
        and entry.space != "native"
        and not (entry.fetcher or entry.standalone or entry.needs_surfaces)
    ]
    if len(names) < count:
        raise SystemExit(f"{len(names)} atlases are installed of {count}: pip install '.[atlases]'.")
    return names[:count]


def cortex() -> list[lake.Atlas]:
    """Return the 68 cortical regions of DK, which the published multiverse has."""
    image, info = volume()
    info = info[info["structure"] == "cortex"]
    labels = np.asarray(image.dataobj)
    kept = np.where(np.isin(labels, info["id"]), labels, 0).astype(labels.dtype)
    return [lake.Atlas.from_volume(nibabel.Nifti1Image(kept, image.affine), info, name="dk-cortex")]


ATLASES: dict[str, Callable[..., Sequence[Any]]] = {
    "dk": lambda: [DK],
    "volume_and_surface": lambda: [DK, DK_SURFACE],
    "alike": alike,
    "real": real,
    "cortex": cortex,
    "cortex_twice": lambda: [*cortex(), DK_SURFACE],
}


# Pipelines ------------------------------------------------------------------------------------------


def families(count: int, seed: int, most: int) -> list[lake.Pipeline]:
    """Return all pipelines of the multiverse, or the first, that stand on the same values of samples.

    There are 288 on each of these values; `count` of them are drawn.
    """
    varied = {
        name: MULTIVERSE[name] for kind in AFTER_VALUES for name in KINDS[kind].choices if name in MULTIVERSE
    }
    drawn = lake.multiverse().sample(count, seed=seed)
    return list(
        dict.fromkeys(itertools.chain.from_iterable(lake.grid(one, **varied)[:most] for one in drawn))
    )


PIPELINES: dict[str, Callable[..., Sequence[lake.Pipeline]]] = {
    "default": lambda: [lake.Pipeline()],
    "as_published": lambda: [lake.Pipeline(corrected_mni=False)],  # new wells have no corrected places
    "sample": lambda count, seed: lake.multiverse().sample(count, seed=seed),
    "families": families,
}


# Reductions -----------------------------------------------------------------------------------------


def analyses(store: lake.Lake) -> list[Reduction | str]:
    """Return the three analyses of Markello et al. 2021; modules and map are made up with a seed."""
    random = np.random.default_rng(0)
    probes = store.probes
    symbols = np.intersect1d(probes["gene_symbol"], probes["reannotated_gene_symbol"])
    chosen = random.permutation(symbols[symbols != ""])[:N_IN_MODULES]
    modules = pd.DataFrame(
        {
            "gene_symbol": chosen,
            "module": [f"simulated {n}" for n in random.integers(N_MODULES, size=len(chosen))],
        }
    )
    regions = cortex()[0].regions.index
    region_map = pd.Series(random.normal(size=len(regions)), index=regions)
    return [
        "cge_distance",
        lake.reduction("gene_modules", modules=modules, drop_smallest=DROP_SMALLEST),
        lake.reduction("map_correlation", region_map=region_map),
    ]


# The process ----------------------------------------------------------------------------------------


def chosen(table: dict[str, Callable[..., Any]], given: Sequence[Any]) -> Any:
    """Return what a name of a table, with its numbers, stands for."""
    name, *numbers = given
    return table[name](*numbers)


def carry_out(case: Case) -> dict[str, float]:
    """Run a case and return what it took inside this process."""
    if case.cores:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: case.cores]))
    store = lake.open(case.store)
    atlases, pipelines = chosen(ATLASES, case.atlases), chosen(PIPELINES, case.pipelines)
    start = time.perf_counter()
    try:
        lake.run(
            store,
            atlases,
            pipelines,
            out=case.out,
            workers=case.workers,
            memory_limit=case.memory_limit,
            reduce=analyses(store) if case.analyses else None,
            keep_tables=not case.analyses,
        )
    except RunError as error:
        print(error)
    return {"run_seconds": time.perf_counter() - start, "peak_bytes": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(carry_out(Case(**json.loads(sys.argv[1])))))
