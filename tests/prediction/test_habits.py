"""What people are used to from other libraries: it works, or the error names what does it here."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg import ArgumentError
from err_seg.config.habits import HABITS
from err_seg.export.exporting import ExportError, trace
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def model(toy_model):
    return toy_model()


def test_calling_the_model_with_images_and_words_is_predict(model, images, tmp_path):
    file = tmp_path / "image.png"
    Image.fromarray(images[0]).save(file)
    expected = model.predict(images[0], VOCABULARY, num_kept=3)
    for image in (file, str(file), Image.open(file), images[0], torch.from_numpy(images[0])):
        assert torch.equal(model(image, list(VOCABULARY), num_kept=3).labels, expected.labels)
    assert torch.equal(model(images=file, vocabulary=VOCABULARY, num_kept=3).labels, expected.labels)
    assert [found.size for found in model(images, VOCABULARY)] == [image.shape[:2] for image in images]
    with pytest.raises(TypeError, match="vocabulary"):
        model(images[0])
    with pytest.raises(ArgumentError, match="training mode"):
        model.train()(file, VOCABULARY)


def test_calling_the_model_with_tensors_is_the_network(model, images):
    batch, text = model.preprocess([torch.from_numpy(images[0]).permute(2, 0, 1)]), model.embed_vocabulary(VOCABULARY)
    tokens = model.vocabulary_encoder.tokenize(VOCABULARY)
    expected = model.forward(batch, text, 3)
    for prediction in (model(batch, text, 3), model(images=batch, text=text, num_kept=3), model(batch, tokens, 3)):
        assert torch.equal(prediction.kept, expected.kept)
        assert torch.allclose(prediction.logits, expected.logits, atol=1e-5)
    model.train()(batch, tokens, labels=torch.zeros(1, 64, 64, dtype=torch.int64)).logits.sum().backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (lambda model: model.half(), "float16"),
        (lambda model: model.bfloat16(), "bfloat16"),
        (lambda model: model.double(), "float64"),
        (lambda model: model.to(torch.float16), "float16"),
        (lambda model: model.to("cpu", torch.float64), "float64"),
    ],
)
def test_converted_weights_are_refused_with_what_to_do(toy_model, images, convert, kind):
    converted = convert(toy_model())
    for label in (converted.predict, converted.predict_stream):
        with pytest.raises(ArgumentError, match=rf'must be float32, not torch\.{kind};.*precision="fp16"\) or "bf16"'):
            label(images[0], VOCABULARY)
    with pytest.raises(ExportError, match="float32"):
        trace(converted)
    model = toy_model()
    again = model.double().float().predict(images[0], VOCABULARY)
    assert torch.equal(again.labels, toy_model().predict(images[0], VOCABULARY).labels)


KEYWORDS = [
    ("source", "images"),
    ("classes", "vocabulary="),
    ("text", "vocabulary="),
    ("prompts", "vocabulary="),
    ("labels", "vocabulary="),
    ("conf", r"scores"),
    ("threshold", "scores"),
    ("box_threshold", "scores"),
    ("imgsz", "tile=.*size="),
    ("stream", "predict_stream"),
    ("save", r"out\.save"),
    ("project", r"out\.save"),
    ("verbose", "progress="),
    ("device", r"err_seg\.load\(\.\.\., device="),
    ("half", r"err_seg\.load\(\.\.\., precision="),
]


@pytest.mark.parametrize(("keyword", "hint"), KEYWORDS)
def test_keywords_of_other_libraries(model, images, keyword, hint):
    with pytest.raises(TypeError, match=rf"^predict\(\) has no '{keyword}'; use .*{hint}"):
        model.predict(images[0], VOCABULARY, **{keyword: 1})
    with pytest.raises(TypeError, match=rf"^predict_stream\(\) has no '{keyword}'; use .*{hint}"):
        model.predict_stream(images[0], VOCABULARY, **{keyword: 1})
    with pytest.raises(TypeError, match=rf"^predict\(\) has no '{keyword}'; use .*{hint}"):
        model(images[0], VOCABULARY, **{keyword: 1})


def test_keywords_in_the_place_of_arguments(model):
    with pytest.raises(TypeError, match=r"^predict\(\) has no 'source'"):
        model.predict(source="photo.jpg", classes=VOCABULARY)
    with pytest.raises(TypeError, match="nonsense"):
        model.predict("photo.jpg", VOCABULARY, nonsense=1)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"torch_dtype": torch.float16}, r"'torch_dtype'; use err_seg\.load\(\.\.\., precision="),
        ({"half": True}, "'half'; use .*precision="),
        ({"device_map": "auto"}, "'device_map'; use .*device="),
        ({"classes": ["cat"]}, "'classes'; use vocabulary="),
    ],
)
def test_keywords_of_load(options, hint):
    for load in (err_seg.load, err_seg.ERRSeg.from_pretrained):
        with pytest.raises(TypeError, match=rf"^load\(\) has no {hint}"):
            load("mini", **options)


def test_no_hint_stands_in_the_way_of_an_argument():
    for function in (err_seg.ERRSeg.predict, err_seg.ERRSeg.predict_stream):
        assert not HABITS.keys() & inspect.signature(function).parameters.keys()
    assert err_seg.load("mini", device="cpu").device.type == "cpu"


def test_summary(model, images):
    result = model.predict(images[0], VOCABULARY)
    rows, labels, scores = result.summary(), result.labels.numpy(), result.scores.numpy()
    assert len(rows) > 1
    assert {row["label"] for row in rows} == set(np.unique(labels).tolist())
    assert sum(row["pixels"] for row in rows) == labels.size
    assert [row["pixels"] for row in rows] == sorted((row["pixels"] for row in rows), reverse=True)
    for row in rows:
        mask = labels == row["label"]
        assert row["name"] == VOCABULARY[row["label"]]
        assert row["pixels"] == mask.sum()
        assert row["share"] == pytest.approx(mask.mean(), abs=1e-6)
        assert row["score"] == pytest.approx(scores[mask].mean(), abs=1e-4)
