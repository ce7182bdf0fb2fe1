"""Files of atlases for the tests, good and damaged."""

import pickle
import struct

import nibabel
import numpy as np
import pytest

LEFT = "atlas-desikankilliany-lh.label.gii.gz"
RIGHT = "atlas-desikankilliany-rh.label.gii.gz"
VERTICES = 10_242  # of a hemisphere of fsaverage5


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
