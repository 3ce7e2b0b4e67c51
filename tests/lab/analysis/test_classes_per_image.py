import json

import numpy as np
import pytest
from PIL import Image

from err_seg.data import DatasetError, ImageReadError
from err_seg.data.label_values import LabelRule
from err_seg.lab.analysis.classes_per_image import (
    class_counts_table,
    count_classes,
    draw_class_counts,
    save_class_counts,
)
from err_seg.visualization.plots import save_figure

CLASSES = ("road", "sky", "car", "person", "dog")


def as_label(values, dtype=np.uint8):
    return np.resize(np.array(values, dtype=dtype), (6, 5))


def test_ignored_pixels_are_no_class(write_pairs):
    labels = [as_label([0, 255]), as_label([4, 1, 0]), as_label([255]), as_label([3])]
    counts = count_classes(write_pairs(labels, CLASSES))
    assert counts.classes.tolist() == [1, 3, 0, 1]
    assert counts.mean == 1.25
    assert counts.redundancy == pytest.approx(1 - 1.25 / 5)


def test_sixteen_bit_labels_and_an_ignore_label_between_no_values(write_pairs):
    vocabulary = tuple(f"class {index}" for index in range(847))
    labels = [as_label([846, 65535], np.uint16), as_label([3, 300, 256, 0], np.uint16)]
    pairs = write_pairs(labels, vocabulary, label_ext=".tif", ignore_label=65535)
    assert count_classes(pairs).classes.tolist() == [1, 4]


def test_background_is_one_class_of_the_whole_vocabulary(write_pairs):
    counts = count_classes(write_pairs([as_label([0, 2, 255])], CLASSES, variant="background", num_foreground=2))
    assert (counts.classes.tolist(), counts.vocabulary_size) == ([2], 5)


def test_several_processes_count_the_same_in_the_same_order(write_pairs):
    rng = np.random.default_rng(0)
    pairs = write_pairs([as_label(rng.integers(0, 5, 1 + index % 4)) for index in range(130)], CLASSES)
    expected = [len(np.unique(pairs.load_label(index))) for index in range(130)]
    assert count_classes(pairs, workers=2).classes.tolist() == expected


@pytest.mark.parametrize("value", [5, 254])
def test_a_value_that_is_no_class_is_named(write_pairs, value):
    pairs = write_pairs([as_label([0]), as_label([1, value])], CLASSES)
    with pytest.raises(DatasetError, match=rf"001\.png: 15 pixels hold {value}"):
        count_classes(pairs)


def test_a_damaged_label_map_is_named(write_pairs, tmp_path):
    pairs = write_pairs([as_label([0]), as_label([1])], CLASSES)
    (tmp_path / "labels" / "001.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match=r"001\.png: is empty"):
        count_classes(pairs)


def test_table_file_and_image(write_pairs, tmp_path):
    labels = [as_label([0, 1]), as_label([4])]
    results = [count_classes(write_pairs(labels, CLASSES, name=name)) for name in ("streets", "pascal_voc_20_val")]

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in class_counts_table(results).splitlines()]
    assert rows[2] == ["streets", "2", "1.50", "-", "1.50", "2", "5", "70.00"]
    assert rows[3][3] == "1.50"  # the paper's

    save_class_counts(results, tmp_path / "counts.json")
    entry = json.loads((tmp_path / "counts.json").read_text())["streets"]
    assert entry["histogram"] == [0, 1, 1]
    assert entry["redundancy"] == pytest.approx(0.7)

    figure = draw_class_counts(results)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [0.5, 0.5]
    save_figure(figure, tmp_path / "counts.png")
    assert Image.open(tmp_path / "counts.png").format == "PNG"


def test_values_of_an_entry_count_by_what_they_mean(write_pairs):
    raw = [as_label([7, 8, 26, 0]), as_label([0])]
    pairs = write_pairs(raw, ("road", "car"), label_rule=LabelRule(((0, 255), (7, 0), (8, 0), (26, 1))))
    assert count_classes(pairs).classes.tolist() == [2, 0]
    colours = [np.stack([label, label, label], axis=2) for label in raw]
    rule = LabelRule(tuple((value * 0x010101, label) for value, label in pairs.spec.label_rule.labels), is_color=True)
    pairs = write_pairs(colours, ("road", "car"), images=colours, label_rule=rule)
    assert count_classes(pairs).classes.tolist() == [2, 0]
