"""Results and models for FiftyOne."""

import numpy as np
import pytest
from PIL import Image

fiftyone = pytest.importorskip("fiftyone")

from err_seg.integrations.fiftyone import FiftyOneModel, mask_targets  # noqa: E402

VOCABULARY = ["cat", "grass", "sky", "tree"]


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.fromarray(random.integers(0, 256, (40, 50 + number, 3), dtype=np.uint8)).save(file)
    return files


def test_values_are_labels_plus_one(toy_model, images):
    result = toy_model().predict(images[0], VOCABULARY)
    mask = result.to_fiftyone().mask
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, result.labels.numpy() + 1)
    assert mask_targets(VOCABULARY) == {1: "cat", 2: "grass", 3: "sky", 4: "tree"}


def test_a_long_vocabulary_has_wider_values(toy_model, images):
    names = [f"{thing} {i}" for i in range(75) for thing in VOCABULARY]
    result = toy_model("MODEL.CRM.ENABLED", False).predict(images[0], names)
    mask = result.to_fiftyone().mask
    assert mask.dtype == np.uint16
    assert np.array_equal(mask, result.labels.numpy().astype(int) + 1)


def test_images_together_are_as_alone(toy_model, images):
    model = FiftyOneModel(toy_model(), VOCABULARY)
    arrays = [np.asarray(Image.open(file)) for file in images]
    together = model.predict_all(arrays)
    assert [found.mask.shape for found in together] == [(40, 50), (40, 51), (40, 52)]
    for found, array in zip(together, arrays, strict=True):
        assert (found.mask == model.predict(array).mask).mean() > 0.99  # but for rounding


def test_a_vocabulary_by_name(toy_model, images):
    model = FiftyOneModel(toy_model(), "voc20")
    assert len(model.mask_targets) == 20
    assert model.mask_targets[1] == "aeroplane"


@pytest.mark.slow
def test_apply_model(toy_model, images):
    """With FiftyOne's database, which takes a while to start."""
    model = FiftyOneModel(toy_model(), VOCABULARY)
    try:
        dataset = fiftyone.Dataset()
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(f"FiftyOne has no database here: {error}")
    try:
        dataset.add_samples([fiftyone.Sample(filepath=str(file)) for file in images])
        dataset.default_mask_targets = model.mask_targets
        dataset.apply_model(model, label_field="err_seg", batch_size=2)
        for sample in dataset:
            alone = model.predict(np.asarray(Image.open(sample.filepath)))
            assert sample["err_seg"].mask.shape == alone.mask.shape
            assert (sample["err_seg"].mask == alone.mask).mean() > 0.99  # but for rounding
    finally:
        dataset.delete()
