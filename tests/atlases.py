"""Small atlases for the tests: images, labels of vertices, sheets as meshes."""

import re

import nibabel
import numpy as np
import pandas as pd
import pytest

from transforms.atlas import Atlas
from transforms.errors import AtlasError


def image(data, affine=None, dtype=np.int16):
    return nibabel.Nifti1Image(np.asarray(data, dtype=dtype), np.eye(4) if affine is None else affine)


def refused(sentence: str) -> "pytest.RaisesExc[AtlasError]":
    """Expect this sentence of an `AtlasError`."""
    return pytest.raises(AtlasError, match=re.escape(sentence))


def gifti(labels, names=None, n_arrays=1):
    table = nibabel.gifti.GiftiLabelTable()
    for key, name in (names or {}).items():
        entry = nibabel.gifti.GiftiLabel(key)
        entry.label = name
        table.labels.append(entry)
    array = nibabel.gifti.GiftiDataArray(np.asarray(labels, dtype=np.int32), intent="NIFTI_INTENT_LABEL")
    return nibabel.GiftiImage(darrays=[array] * n_arrays, labeltable=table)


def sheet(n_vertices, seed=0):
    vertices = np.random.default_rng(seed).uniform(-50, 50, (n_vertices, 3)).astype(np.float32)
    triangles = np.column_stack([np.arange(n_vertices - 2) + step for step in range(3)]).astype(np.int32)
    return vertices, triangles


def surface(left, right, **more):
    sizes = [len(side[0]) if isinstance(side, tuple) else len(side.darrays[0].data) for side in (left, right)]
    return Atlas.from_surface(left, right, mesh=(sheet(sizes[0]), sheet(sizes[1], 1)), name="sheet", **more)


def facts(hemisphere, structure="cortex", ids=(1,)):
    return pd.DataFrame({"id": list(ids), "hemisphere": hemisphere, "structure": structure})
