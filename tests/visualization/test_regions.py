"""Connected parts of label maps, and their outlines in other programs' formats."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from err_seg.utils.files import write_pieces
from err_seg.visualization.regions import coco_dataset, find_regions, join_coco, to_geojson

NAMES = ["wall", "cat", "dog"]
LABELS = np.array(
    [
        [0, 0, 0, 0, 0, 1],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 2, 1, 0, 0],
        [0, 1, 1, 1, 0, 9],
    ]
)
label_maps = arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


def area_of(polygon):
    """Signed areas of the rings added up without signs: the outer one less the holes."""
    outer, *holes = (
        abs(np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1])) / 2 for ring in map(np.asarray, polygon)
    )
    return outer - sum(holes)


def test_parts_of_a_class_are_apart_and_the_largest_comes_first():
    scores = np.where(LABELS == 1, 0.75, 0.5).astype(np.float32)
    scores[0, 5] = 0.25
    regions = find_regions(LABELS, NAMES, scores)
    assert [(region.name, region.area, region.box) for region in regions] == [
        ("wall", 13, (0, 0, 6, 4)),
        ("cat", 8, (1, 1, 3, 3)),
        ("cat", 1, (5, 0, 1, 1)),
        ("dog", 1, (2, 2, 1, 1)),
    ]
    assert [region.score for region in regions] == [0.5, 0.75, 0.25, 0.5]
    assert [region.area for region in find_regions(LABELS, NAMES, min_area=5)] == [13, 8]
    assert find_regions(LABELS, NAMES)[0].score is None


@given(label_maps)
def test_regions_are_the_label_map(labels):
    painted = np.full(labels.shape, 3)  # the value without a name
    for region in find_regions(labels, NAMES):
        x, y, width, height = region.box
        part = painted[y : y + height, x : x + width]
        assert region.area == region.mask.sum()
        assert (part[region.mask] == 3).all(), "regions do not overlap"
        part[region.mask] = region.label
    assert np.array_equal(painted, labels)


@given(label_maps)
def test_outlines_enclose_the_regions(labels):
    for region in find_regions(labels, NAMES):
        polygons = region.outlines()
        points = np.concatenate([ring for polygon in polygons for ring in polygon])
        x, y, width, height = region.box
        assert (points.min(axis=0) >= [x, y]).all()
        assert (points.max(axis=0) <= [x + width, y + height]).all()
        assert all(np.array_equal(ring[0], ring[-1]) for polygon in polygons for ring in polygon)
        assert sum(map(area_of, polygons)) == region.area, "exactly"


def inside(polygons, shape):
    """How many rings around each pixel's centre, modulo 2: from sides that run along the pixels."""
    sides = np.zeros((shape[0], shape[1] + 1), dtype=int)
    for ring in (ring for polygon in polygons for ring in polygon):
        for (x, y), (next_x, next_y) in itertools.pairwise(ring.astype(int)):
            assert (x == next_x) != (y == next_y)
            sides[min(y, next_y) : max(y, next_y), x] ^= 1
    return np.cumsum(sides, axis=1)[:, :-1] % 2


@given(label_maps)
def test_outlines_cover_the_label_map_without_gaps_and_overlaps(labels):
    covered = np.zeros(labels.shape, dtype=int)
    for region in find_regions(labels, NAMES):
        polygons = region.outlines()
        x, y, width, height = region.box
        own = np.zeros(labels.shape, dtype=bool)
        own[y : y + height, x : x + width] = region.mask
        assert np.array_equal(inside(polygons, labels.shape), own)
        covered += own
        for ring in polygons[0]:
            assert len({tuple(point) for point in ring[:-1].tolist()}) == len(ring) - 1, "no ring touches itself"
    assert np.array_equal(covered, labels < len(NAMES))


def test_geojson_is_exact_unless_asked():
    """Outlines of neighbours used to leave out small triangles at each corner between them."""
    features = to_geojson(find_regions(LABELS, NAMES))["features"]
    assert sum(area_of(feature["geometry"]["coordinates"]) for feature in features) == (LABELS < 3).sum()
    (cat,) = [f for f in features if f["properties"]["area"] == 8]
    assert cat["geometry"]["coordinates"] == [
        [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]],
        [[2, 2], [2, 3], [3, 3], [3, 2], [2, 2]],
    ]
    stairs = find_regions(np.tri(20, dtype=int), ["sky", "roof"])
    assert [len(region.outlines()[0][0]) for region in stairs] == [43, 41]
    assert all(len(region.outlines(simplify=1.0)[0][0]) < 8 for region in stairs)


def test_outline_of_a_square_with_a_hole():
    (cat,) = [region for region in find_regions(LABELS, NAMES) if region.area == 8]
    ((outer, hole),) = cat.outlines(simplify=1.0)
    assert outer.min(axis=0).tolist() == [1, 1]
    assert outer.max(axis=0).tolist() == [4, 4]
    assert hole.min(axis=0).tolist() == [2, 2]
    assert len(outer) == len(cat.outlines()[0][0]) == 5


def test_geojson():
    wall, *_ = to_geojson(find_regions(LABELS, NAMES, np.ones(LABELS.shape, np.float32)))["features"]
    assert wall["properties"] == {"class": "wall", "label": 0, "area": 13, "score": 1.0}
    assert wall["geometry"]["type"] == "Polygon"
    assert all(len(point) == 2 for ring in wall["geometry"]["coordinates"] for point in ring)


def test_pycocotools_loads_the_data_set(tmp_path):
    size = LABELS.shape
    images = [("b.jpg", (2, 2), []), ("a.jpg", size, find_regions(LABELS, NAMES)), ("c.jpg", size, [])]
    parts = iter([coco_dataset(*image, NAMES) for image in images])
    pieces = join_coco(parts, NAMES)
    begun = [next(pieces), next(pieces)]
    assert len(list(parts)) == 1, "not all are held in memory"
    write_pieces(tmp_path / "coco.json", join_coco((coco_dataset(*image, NAMES) for image in images), NAMES))
    assert (tmp_path / "coco.json").read_text().startswith("".join(begun))
    coco = COCO(str(tmp_path / "coco.json"))
    assert [coco.imgs[i]["file_name"] for i in (1, 2, 3)] == ["b.jpg", "a.jpg", "c.jpg"]
    painted = np.full(size, 9)
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[2])):
        mask = coco.annToMask(annotation).astype(bool)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == mask_utils.toBbox(annotation["segmentation"]).tolist()
        painted[mask] = annotation["category_id"] - 1
    assert np.array_equal(painted, LABELS)
    assert [category["name"] for category in coco.loadCats([1, 2, 3])] == NAMES


@pytest.mark.parametrize("size", [(7, 9), (1, 6), (6, 1), (1, 1), (12, 5)])
def test_run_lengths_are_those_of_pycocotools(size):
    """Wherever a region lies: at corners, over whole columns, over all."""
    random = np.random.default_rng(0)
    for classes in (1, 2, 2, 3, 5):
        labels = random.integers(0, classes, size).repeat(2, 0).repeat(2, 1)
        names = [str(label) for label in range(classes)]
        regions = find_regions(labels, names)
        annotations = coco_dataset("", labels.shape, regions, names)["annotations"]
        for region, annotation in zip(regions, annotations, strict=True):
            x, y, width, height = region.box
            whole = np.zeros(labels.shape, dtype=np.uint8, order="F")
            whole[y : y + height, x : x + width] = region.mask
            assert annotation["segmentation"]["counts"].encode() == mask_utils.encode(whole)["counts"]
