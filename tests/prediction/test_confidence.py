"""Leads and confidence of a result."""

from dataclasses import replace

import pytest
import torch

import err_seg
from err_seg.prediction import class_maps
from err_seg.prediction.calibration import NARROWEST, Calibration
from err_seg.prediction.refine import refined
from err_seg.utils.validation import ArgumentError
from tests.helpers.results import a_result
from tests.helpers.toy import VOCABULARY

CALIBRATION = Calibration(0.8, -0.3, "somewhere", 5)


@pytest.mark.parametrize("num_kept", [2, 7, 21])
def test_lead_is_the_share_of_the_best_two(num_kept):
    """Also where classes are looked at in portions."""
    result = a_result(num_classes=30, num_kept=num_kept)
    best, second = result.maps.topk(2, dim=0).values
    torch.testing.assert_close(result.lead, best / (best + second))


def test_a_class_alone_leads_by_its_own_probability():
    result = a_result(num_kept=1)
    torch.testing.assert_close(result.lead, result.scores)


def test_lead_where_nothing_is_probable_is_a_number():
    result = a_result()
    nothing = replace(result, probabilities=torch.zeros_like(result.probabilities))
    assert nothing.lead.isfinite().all()


def test_large_results_are_made_in_strips(monkeypatch):
    whole = a_result(size=(200, 150)).lead
    monkeypatch.setattr(class_maps, "PIXELS_AT_A_TIME", 4 * 150 * 30)
    torch.testing.assert_close(a_result(size=(200, 150)).lead, whole)


def test_confidence_by_its_formula():
    result = replace(a_result(), calibration=CALIBRATION)
    lead = result.lead.double().clamp(NARROWEST, 1 - NARROWEST)
    expected = 1 / (1 + torch.exp(-(torch.log(lead / (1 - lead)) / 0.8 - 0.3)))
    torch.testing.assert_close(result.confidence, expected.float())
    assert result.confidence.shape == result.size
    assert 0 < result.confidence.min() < result.confidence.max() < 1


def test_without_calibration_there_are_no_numbers():
    with pytest.raises(ArgumentError, match=r"not calibrated.*err-seg calibrate MODEL --datasets NAME"):
        _ = a_result().confidence


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_impossible_numbers_are_refused(numbers):
    with pytest.raises(ValueError, match="must be above 0"):
        Calibration(*numbers)


def test_every_way_of_predicting_passes_the_calibration_on(toy_model, images):
    model = toy_model()
    model.calibration = CALIBRATION
    for options in ({}, {"tile": 32}, {"refine": True}, {"size": (20, 30)}):
        for result in model.predict(images, VOCABULARY, **options):
            assert result.calibration is CALIBRATION, options
            assert result.confidence.shape == result.size
    results = model.predict(images[:1] * 3, VOCABULARY)
    for result in (*err_seg.smoothed(results, 1), results[0].resized((9, 9)), results[0].cpu()):
        assert result.calibration is CALIBRATION
    assert refined(results[0], torch.zeros(3, 8, 8, dtype=torch.uint8)).calibration is CALIBRATION


def test_training_and_other_weights_drop_it(toy_model):
    model = toy_model()
    model.calibration = CALIBRATION
    model.eval()
    assert model.calibration is CALIBRATION
    model.train().eval()
    assert model.calibration is None
    for load in (model.load_state_dict, lambda state: err_seg.load_weights(model, state)):
        model.calibration = CALIBRATION
        load(model.state_dict())
        assert model.calibration is None
