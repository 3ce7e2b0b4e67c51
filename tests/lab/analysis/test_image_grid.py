"""Image grids: colours, legends and headings, and the command with several lists of words and models."""

import json

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.commands.figures import main
from err_seg.lab.analysis.image_grid import Column, _heading, _legend, image_grid, predict_column
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.visualization.grid import GAP, HEADING_TEXT, fitting_size
from err_seg.visualization.text import text_width


def names(entries):
    return [entry.name for entry in entries]


def test_a_name_has_one_colour_in_all_columns():
    """Whatever its index in the column's own vocabulary; names that nobody shows have none."""
    image = np.full((64, 64, 3), 120, dtype=np.uint8)
    left = np.where(np.arange(64) < 32, 0, 1) * np.ones((64, 1), dtype=int)
    same = Column(("dog", "grass", "sky"), [left])
    turned = Column(("Grass, lawn", "bus", "Dog"), [np.where(left == 0, 2, 0)])
    grid = np.asarray(image_grid([image], [same, turned], cell=64)).astype(int)
    row = next(y for y in range(grid.shape[0]) if (grid[y, GAP : GAP + 64] == 120).all())
    panels = [grid[row : row + 64, start : start + 64] for start in (2 * GAP + 64, 3 * GAP + 128)]
    assert np.array_equal(*panels)
    assert np.abs(panels[0][30, 10] - panels[0][30, 50]).sum() > 60


def test_unpainted_pixels_stay_gray():
    image = np.full((64, 64, 3), (200, 30, 30), dtype=np.uint8)
    labels = np.full((64, 64), 255)
    labels[:, 40:] = 0
    grid = np.asarray(image_grid([image], [Column(("dog",), [labels])], cell=64))
    row = next(y for y in range(grid.shape[0]) if (grid[y, GAP : GAP + 64] == (200, 30, 30)).all())
    panel = grid[row + 30, 2 * GAP + 64 : 2 * GAP + 128].astype(int)
    assert np.ptp(panel[10]) == 0
    assert np.ptp(panel[55]) > 30


def test_legend_names_the_largest_first_and_counts_the_rest():
    labels = np.zeros((100, 100), dtype=int)
    labels[:70] = 2
    labels[0, :3] = 1
    assert names(_legend(labels, ("dog", "cat", "sky"))) == ["sky", "dog", "1 more below 0.5%"]


def test_headings_are_wrapped_and_cut():
    few = _heading(Column(("brown dog", "grass"), []), 256)
    assert few == ["brown dog, grass"]
    many = _heading(Column(VOCABULARY, [], "some model"), 256)
    assert many[0] == "some model"
    assert many[-1].startswith("… ")
    shown = sum(line.count(",") for line in many)
    assert many[-1] == f"… {60 - shown} more"
    assert all(text_width(line, HEADING_TEXT) <= 256 for line in many)
    assert _heading(Column(VOCABULARY, [], "ground truth", lists_names=False), 256) == ["ground truth"]


def test_what_does_not_fit_is_refused():
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="0 label maps in a column for 1 images"):
        image_grid([image], [Column(("dog",), [])])
    with pytest.raises(ValueError, match="at least one image"):
        image_grid([], [])


def test_a_predicted_column_is_the_prediction():
    model = err_seg.load("mini", device="cpu")
    scene = MiniScenes("test", length=5, seed=0)[4]
    column = predict_column(model, [scene.image], VOCABULARY, title="mini", cell=128)
    width, height = fitting_size((scene.image.shape[1], scene.image.shape[0]), 128)
    expected = model.predict([scene.image], VOCABULARY, size=(height, width))[0].labels.numpy()
    assert np.array_equal(column.labels[0], expected)
    words = ("circle", "star", "triangle", "ring", "dotted wall")
    shown = predict_column(model, [scene.image], words, num_kept=2).labels[0]
    assert len(np.unique(shown)) <= 2


@pytest.fixture
def scenes(tmp_path):
    """Two images, their label maps and the file of their names."""
    files = {"images": [], "labels": []}
    for index in (1, 4):
        scene = MiniScenes("test", length=5, seed=0)[index]
        for kind, pixels in (("images", scene.image), ("labels", scene.label.astype(np.uint8))):
            files[kind].append(str(tmp_path / f"{kind}{index}.png"))
            Image.fromarray(pixels).save(files[kind][-1])
    (tmp_path / "words.json").write_text(json.dumps(VOCABULARY))
    return files, str(tmp_path / "words.json")


def test_command(scenes, tmp_path):
    (files, words), output = scenes, tmp_path / "grid.png"
    lists = ["--classes", "circle, square, wall", "--classes-file", words, "--num-kept", "3"]
    truth = ["--truth", *files["labels"], "--truth-classes", words]
    arguments = ["grid", *files["images"], *lists, "--cell", "100", "--output", str(output)]
    assert main([*arguments, *truth, "--model", "mini", "--model", "mini"]) == 0
    assert Image.open(output).width == GAP + 6 * (100 + GAP)  # image, truth, and two lists by each of two models


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files, words: [], "no words; give one or more lists"),
        (lambda files, words: ["--classes", "circle, square, circle"], "'circle'"),
        (lambda files, words: ["--classes", "circle, elephant"], "elephant"),
        (lambda files, words: ["--classes", "circle", "--truth", files["labels"][0]], "needs --truth-classes"),
        (
            lambda files, words: ["--classes", "circle", "--truth", files["labels"][0], "--truth-classes", words],
            "names 1 label maps for 2 images",
        ),
        (
            lambda files, words: ["--classes", "ring", "--truth", *files["labels"][::-1], "--truth-classes", words],
            "its image",
        ),
        (lambda files, words: ["--classes-file", "nowhere.txt"], "nowhere.txt"),
        (lambda files, words: ["--classes", "circle", "--model", "nowhere"], "no model 'nowhere'"),
    ],
)
def test_command_errors(scenes, change, message, tmp_path, capsys):
    files, words = scenes
    output = tmp_path / "grid.png"
    options = change(files, words)
    model = [] if "--model" in options else ["--model", "mini"]
    assert main(["grid", *files["images"], *options, *model, "--output", str(output)]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert not output.exists()


def test_an_unreadable_image(tmp_path, capsys):
    assert main(["grid", str(tmp_path / "none.jpg"), "--classes", "circle", "--model", "mini"]) == 1
    assert "none.jpg: no such file" in capsys.readouterr().err
