"""Distances between regions: against the recorded output of abagen 0.1.3, geometry and plain loops."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.atlas import Atlas
from transforms.distance import REGION_DISTANCES, path_lengths, region_distances, surface_graph
from transforms.errors import ChoiceError

RECORDED = json.loads((Path(__file__).parent / "data" / "abagen_correct.json").read_text())["surface"]
MNI = ["mni_x", "mni_y", "mni_z"]


@pytest.fixture(scope="module")
def surface(dk_surface: Atlas) -> Atlas:
    return dk_surface


# Euclidean --------------------------------------------------------------------------------------------------


def test_centroid_distances_are_those_of_the_atlas(atlas):
    table = region_distances(atlas)
    for one, row in atlas.regions.iterrows():
        for other, column in atlas.regions.iterrows():
            step = [row[f"centroid_{axis}"] - column[f"centroid_{axis}"] for axis in "xyz"]
            assert table.loc[one, other] == pytest.approx(np.hypot(np.hypot(*step[:2]), step[2]), abs=1e-12)
    assert table.index.name == "label"


def invented_samples(seed=0, n_samples=60):
    random = np.random.default_rng(seed)
    samples = pd.DataFrame(random.uniform(-60, 60, (n_samples, 3)), columns=MNI)
    return samples, random.choice([0, 1, 2, 3, 5, 6, 8], n_samples)


def test_sample_distances_are_between_the_means_of_the_samples(atlas):
    samples, labels = invented_samples()
    table = region_distances(atlas, method="samples", samples=samples, labels=labels)
    means = {region: samples.to_numpy()[labels == region].mean(axis=0) for region in set(labels) - {0}}
    for one in table.index:
        for other in table.index:
            if one in means and other in means:
                expected = np.sqrt(((means[one] - means[other]) ** 2).sum())
                assert table.loc[one, other] == pytest.approx(expected, abs=1e-12)
            else:
                assert np.isnan(table.loc[one, other])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_samples_never_matters(atlas, seed):
    samples, labels = invented_samples()
    order = np.random.default_rng(seed).permutation(len(samples))
    expected = region_distances(atlas, method="samples", samples=samples, labels=labels)
    found = region_distances(atlas, method="samples", samples=samples.iloc[order], labels=labels[order])
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-10)


# Along the surface ------------------------------------------------------------------------------------------


def test_paths_are_abagens():
    vertices, triangles = np.array(RECORDED["vertices"]), np.array(RECORDED["triangles"])
    nodes = np.array(RECORDED["nodes"])
    allowed = np.ones(len(vertices), dtype=bool)
    allowed[RECORDED["hidden"]] = False
    for name, mask in {"whole": None, "without hidden": allowed}.items():
        found = path_lengths(surface_graph(vertices, triangles, allowed=mask), nodes)
        expected = np.reshape(RECORDED[name], (len(nodes), -1))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    assert RECORDED["whole"] != RECORDED["without hidden"]


def test_flat_triangles_are_joined_across_their_shared_edge():
    vertices = np.array([[0, 0, 0], [2, 0, 0], [1, 1, 0], [1, -1, 0]], dtype=float)
    graph = surface_graph(vertices, np.array([[0, 1, 2], [0, 3, 1]])).toarray()
    expected = np.zeros((4, 4))
    expected[0, 1], expected[0, 2], expected[0, 3], expected[1, 2], expected[1, 3] = 2, *[np.sqrt(2)] * 4
    expected[2, 3] = 2  # over the middle of the edge
    np.testing.assert_allclose(graph, expected, rtol=0, atol=1e-12)


def test_vertices_joined_in_several_ways_keep_the_shortest():
    octahedron = np.concatenate([np.eye(3), -np.eye(3)])
    faces = [[a, b, c] for a in (0, 3) for b in (1, 4) for c in (2, 5)]
    graph = surface_graph(octahedron, np.array(faces)).toarray()
    assert graph[0, 3] == pytest.approx(np.sqrt(6))  # abagen: four times as much
    assert graph.max() == pytest.approx(np.sqrt(6))


def test_unjoined_parts_have_no_distance():
    triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=float)
    graph = surface_graph(np.concatenate([triangle, triangle + 9]), np.array([[0, 1, 2], [3, 4, 5]]))
    lengths = path_lengths(graph, np.array([0, 1, 3]))
    np.testing.assert_array_equal(np.isnan(lengths), [[0, 0, 1], [0, 0, 1], [1, 1, 0]])


def test_surface_distances_of_a_real_atlas(surface):
    table = region_distances(surface, method="surface")
    straight = region_distances(surface)
    left = surface.regions["hemisphere"].to_numpy() == "L"
    across = left[:, None] != left
    assert table.to_numpy()[across].size
    assert np.isnan(table.to_numpy()[across]).all()
    within = table.to_numpy()[~across]
    assert (within >= straight.to_numpy()[~across] - 1e-9).all()
    assert np.diag(table).max() == 0
    np.testing.assert_array_equal(table, table.T)


def test_paths_over_the_medial_wall_are_shorter(surface):
    around = region_distances(surface, method="surface")
    over = region_distances(surface, method="surface", cross_unlabelled=True)
    shorter = (around - over).to_numpy()
    assert np.nanmin(shorter) >= -1e-9
    assert np.nanmax(shorter) > 10


# What is refused --------------------------------------------------------------------------------------------


def test_wrong_requests_are_refused_with_a_sentence(atlas):
    samples, labels = invented_samples()
    refused = {
        "Unknown region distance 'sphere': choose centroids, samples, surface": {"method": "sphere"},
        "take samples .* and labels": {"method": "samples", "samples": samples},
        "There are 60 samples, but labels for": {
            "method": "samples",
            "samples": samples,
            "labels": labels[1:],
        },
        "Samples lie in region 9, which atlas 'octants' lacks": {
            "method": "samples",
            "samples": samples,
            "labels": labels + 1,
        },
        "Atlas 'octants' is a volume": {"method": "surface"},
    }
    assert {choices["method"] for choices in refused.values()} >= set(REGION_DISTANCES) - {"centroids"}
    for sentence, choices in refused.items():
        with pytest.raises(ChoiceError, match=sentence):
            region_distances(atlas, **choices)
