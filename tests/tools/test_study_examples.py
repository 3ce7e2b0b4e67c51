"""The study of examples: what it compares, and what it writes."""

import json

import pytest
import torch

import err_seg
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import UNSEEN, VOCABULARY
from tools.studies import examples


@pytest.fixture(scope="module")
def drawn():
    return examples.draw_examples(2, seed=0)


def test_examples_are_of_validation_scenes(drawn):
    assert [len(exemplars) for exemplars in drawn] == [2] * len(UNSEEN)
    assert all(exemplar.mask.sum() >= examples.LEAST_PIXELS for exemplars in drawn for exemplar in exemplars)
    shown = {sample.image.tobytes() for sample in (MiniScenes("test", length=80)[index] for index in range(80))}
    assert not shown & {exemplar.image.tobytes() for exemplars in drawn for exemplar in exemplars}


@pytest.mark.slow
def test_rows_are_those_of_the_method(drawn):
    model = err_seg.load("mini")
    rows = examples.rows_by_way(model, examples.example_pixels(model, drawn))
    seen = [name for label, name in enumerate(VOCABULARY) if label not in UNSEEN]
    made = model.vocabulary_with_examples(seen, {VOCABULARY[i]: e for i, e in zip(UNSEEN, drawn, strict=True)})
    expected = torch.stack([made.rows[VOCABULARY[label]].vector for label in UNSEEN])
    assert torch.nn.functional.cosine_similarity(rows["right"], expected, dim=1).min() > 0.99


@pytest.mark.slow
def test_the_command_writes_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(examples, "COUNTS", (1,))
    monkeypatch.setattr("sys.argv", ["examples", "--scenes", "8", "--output", str(tmp_path)])
    examples.main()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["examples"], row["names"]) for row in rows] == [
        *((0, way) for way in ("right", "colour")),
        *((1, way) for way in ("none, plain mean", "none", "right", "colour")),
    ]
    by_way = {(row["examples"], row["names"]): row["miou"][0]["unseen"] for row in rows}
    assert by_way[0, "right"] > by_way[1, "none"] > 50 > by_way[0, "colour"]
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
