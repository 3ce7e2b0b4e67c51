"""How far confidence can be trusted: metrics by hand, the fit, and counts that continue and add up."""

import json
import math

import numpy as np
import pytest
import torch

from err_seg.data import SegmentationPairs, get_dataset
from err_seg.engine import evaluate
from err_seg.evaluation import BoundaryConfusion, ConfusionMatrix, load_results
from err_seg.evaluation.calibration import (
    BINS,
    CENTRES,
    confidence_metrics,
    confidence_of,
    count_pixels,
    cross_validate,
    fit,
    risk_coverage,
)
from err_seg.prediction.calibration import NARROWEST, Calibration

IGNORE = 255
# of unequal sizes, so that they differ from place to place
PIXELS = (1000 * (1.5 + np.sin(np.arange(BINS)))).astype(np.int64)


def counted(confidences, is_right):
    """Count pixels one by one."""
    return count_pixels(torch.tensor(confidences), torch.tensor(is_right))[0].numpy()


def of_calibration(temperature, offset, pixels=PIXELS):
    """Counts in which as many pixels are right as a calibration says."""
    confidence = Calibration(temperature, offset).confidence(torch.from_numpy(CENTRES)).numpy()
    right = np.rint(pixels * confidence).astype(np.int64)
    return np.stack([pixels - right, right], axis=1)


def test_bins_are_as_wide_as_the_narrowest_lead_says():
    assert CENTRES[0] == pytest.approx(NARROWEST)
    counts = counted([0.0, 1.0, 0.5], [False, True, True])
    assert [counts[place].tolist() for place in (0, BINS - 1, BINS // 2)] == [[1, 0], [0, 1], [0, 1]]
    assert counts.sum() == 3


def test_metrics_by_hand():
    """Bins of 1/15: 0.94 and 0.95 share one, 0.72 and 0.31 have their own."""
    counts = counted([0.94, 0.95, 0.72, 0.31], [True, False, True, False])
    found = confidence_metrics(CENTRES, counts)
    ece = (abs(0.94 + 0.95 - 1) + abs(0.72 - 1) + 0.31) / 4
    brier = (0.06**2 + 0.95**2 + 0.28**2 + 0.31**2) / 4
    aurc = (1 / 1 + 1 / 2 + 1 / 3 + 2 / 4) / 4  # the most confident one is wrong
    assert found == pytest.approx({"ECE": 100 * ece, "Brier": 100 * brier, "AURC": 100 * aurc}, abs=0.02)


def test_pixels_that_tie_are_taken_together():
    assert confidence_metrics(CENTRES, counted([0.6] * 4, [True, False, True, True]))["AURC"] == pytest.approx(25)


def test_without_pixels_nothing_is_defined():
    empty = np.zeros((BINS, 2), np.int64)
    assert all(math.isnan(value) for value in confidence_metrics(CENTRES, empty).values())
    assert risk_coverage(empty) == []


def test_risk_by_coverage_by_hand():
    """Of 10 pixels, the two least confident ones are wrong."""
    curve = dict(risk_coverage(counted([0.1 + 0.08 * i for i in range(10)], [i > 1 for i in range(10)])))
    assert list(curve) == list(range(5, 101, 5))
    assert (curve[5], curve[80], curve[90], curve[100]) == pytest.approx((0, 0, 100 / 9, 20))


@pytest.mark.parametrize(("temperature", "offset"), [(1.0, 0.0), (0.6, -0.4), (2.5, 1.2)])
def test_the_fit_finds_what_the_counts_were_made_with(temperature, offset):
    counts = of_calibration(temperature, offset)
    assert fit(counts) == pytest.approx((temperature, offset), abs=2e-3)
    assert fit(counts) == fit(counts)


def test_a_perfect_calibration_has_no_error():
    counts = of_calibration(0.6, -0.4)
    confidences = Calibration(*fit(counts)).confidence(torch.from_numpy(CENTRES)).numpy()
    assert confidence_metrics(confidences, counts)["ECE"] < 0.1
    assert confidence_metrics(CENTRES, counts)["ECE"] > 5


def test_what_cannot_be_fitted_is_refused():
    right, none = np.zeros((2, BINS, 2), np.int64)
    right[:, 1] = PIXELS
    with pytest.raises(ValueError, match=r"of [\d,]+ labelled pixels are right; calibration needs both"):
        fit(right)
    with pytest.raises(ValueError, match=r"^0 of 0 labelled pixels"):
        fit(none)
    with pytest.raises(ValueError, match="not more often right"):
        fit(of_calibration(1.0, 0.0)[::-1])


def test_separable_pixels_have_a_finite_fit():
    counts = counted([0.2, 0.3, 0.8, 0.9], [False, False, True, True])
    temperature, offset = fit(counts)
    assert temperature > 0
    assert math.isfinite(offset)


def test_each_part_is_judged_by_the_fit_to_the_others():
    usual, other = of_calibration(0.6, 0.3), of_calibration(3.0, -0.5)
    scores = np.stack([usual, usual, other])
    found = cross_validate(np.stack([usual, np.zeros_like(usual), other]), scores)
    assert len(found) == 2  # a part without pixels is left out
    (scores_of_usual, of_usual), (_, of_other) = found
    assert scores_of_usual == confidence_metrics(CENTRES, usual)
    wrong = Calibration(*fit(other)).confidence(torch.from_numpy(CENTRES)).numpy()
    assert of_usual == confidence_metrics(wrong, usual)
    assert min(of_usual["ECE"], of_other["ECE"]) > 5


def random_counts(counter=ConfusionMatrix, seed=0, groups=((0, 2), (1,)), background=None):
    generator = torch.Generator().manual_seed(seed)
    counts = counter(4, IGNORE, background)
    counts.count_confidence(groups)
    prediction, label = torch.randint(0, 4, (2, 30, 40), generator=generator)
    label[:3] = IGNORE
    counts.update(prediction, label, torch.rand(30, 40, generator=generator))
    return counts


@pytest.mark.parametrize("counter", [ConfusionMatrix, BoundaryConfusion])
def test_counts_are_restored_and_merged_exactly(counter):
    """A state goes through a file, and counts of several processes add up."""
    first, second = (random_counts(counter, seed) for seed in (0, 1))
    again = counter.from_state(json.loads(json.dumps(first.state())))
    assert torch.equal(again.confidences, first.confidences)
    assert int(first.confidences.sum()) == int(first.matrix.sum()) == 27 * 40
    both = again.merge(second)
    assert torch.equal(both.confidences, first.confidences + second.confidences)
    assert both.metrics("abcd")["ECE-seen"] == (first + second).metrics("abcd")["ECE-seen"]
    restored = counter.from_state(first.state())
    restored.update(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), 0.5))
    assert (restored.confidences - first.confidences)[0].sum() == 4  # its classes have the same groups


def test_counts_with_and_without_confidence_do_not_mix():
    with pytest.raises(ValueError, match="different settings"):
        random_counts().merge(ConfusionMatrix(4, IGNORE))
    with pytest.raises(ValueError, match="different settings"):
        random_counts().merge(random_counts(groups=()))


def test_seen_and_unseen_are_those_of_the_predicted_class():
    counts = ConfusionMatrix(3, IGNORE)
    counts.count_confidence(((0,), (1,)))
    prediction, label = torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[0, 1, 1, 1, 2]])
    counts.update(prediction, label, torch.tensor([[0.7, 0.7, 0.9, 0.9, 0.2]]))
    found = counts.metrics("abc")
    assert found["ECE-seen"] == pytest.approx(20, abs=0.02)
    assert found["ECE-unseen"] == pytest.approx(10, abs=0.02)
    assert found["ECE"] == pytest.approx((2 * 20 + 2 * 10 + 80) / 5, abs=0.02)


def test_without_groups_there_is_one_ece():
    assert not {"ECE-seen", "ECE-unseen"} & random_counts(groups=()).metrics("abcd").keys()


def test_words_beyond_the_ground_truth_count_as_background():
    counts = ConfusionMatrix(2, IGNORE, background=1)
    counts.count_confidence()
    counts.update(torch.tensor([[5, 1, 0]]), torch.tensor([[1, 0, 0]]), torch.tensor([[0.9, 0.9, 0.9]]))
    assert counts.confidences.sum(dim=(0, 1)).tolist() == [1, 2]


@pytest.fixture
def calibrated(toy_model):
    model = toy_model()
    model.calibration = Calibration(0.7, -0.2, "toy_train", 10)
    return model


def interrupted(cfg, model, after):
    def stop(module, inputs):
        stop.seen += 1
        if stop.seen > after:
            raise KeyboardInterrupt

    stop.seen = 0
    hook = model.encoder.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg, model)
    hook.remove()


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_evaluation_counts_what_results_say(run_cfg, toy_model, calibrated, tmp_path, is_calibrated):
    """Without resizing, predict sees what evaluation sees; the result says what was measured."""
    cfg = run_cfg("TEST.CALIBRATION", True, "INPUT.MIN_SIZE_TEST", 0)
    model = calibrated if is_calibrated else toy_model()
    (result,) = evaluate(cfg, model)
    spec, expected = get_dataset("toy_val"), np.zeros((BINS, 2), np.int64)
    for image, label, *_ in SegmentationPairs(spec):
        found = model.predict(image, spec.vocabulary, contrast="none")
        values = found.confidence if is_calibrated else found.scores
        assert torch.equal(confidence_of(found), values)
        label = torch.from_numpy(label).long()
        mask = label != spec.ignore_label
        expected += count_pixels(values[mask], (found.labels == label)[mask])[0].numpy()
    assert result.metrics["ECE"] == pytest.approx(confidence_metrics(CENTRES, expected)["ECE"], abs=1e-3)
    assert ("calibration" in result.settings) is is_calibrated
    (loaded,) = load_results(tmp_path / "out/results.json")
    assert loaded.metrics == pytest.approx(result.metrics, nan_ok=True)
    assert [tuple(point) for point in loaded.risk_coverage] == risk_coverage(expected)
    assert "| AURC |" in (tmp_path / "out/results.csv").read_text().replace(",", " | ")


def test_results_are_as_before_where_confidence_is_not_counted(run_cfg, toy_model, tmp_path):
    evaluate(run_cfg(), toy_model())
    (entry,) = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"].values()
    assert "risk_coverage" not in entry
    assert "ECE" not in entry["metrics"]


def test_an_interrupted_evaluation_continues(run_cfg, calibrated, tmp_path):
    options = ("TEST.CALIBRATION", True, "TEST.PROGRESS_PERIOD", 2)
    (expected,) = evaluate(run_cfg(*options, "OUTPUT_DIR", str(tmp_path / "straight")), calibrated)
    interrupted(run_cfg(*options), calibrated, after=5)
    seen = []
    calibrated.encoder.register_forward_pre_hook(lambda *_: seen.append(1))
    (result,) = evaluate(run_cfg(*options), calibrated)
    assert len(seen) == 7 - 4
    assert result.metrics == pytest.approx(expected.metrics, nan_ok=True)
    assert result.risk_coverage == expected.risk_coverage


def test_counts_of_another_calibration_are_not_continued(run_cfg, calibrated):
    options = ("TEST.CALIBRATION", True, "TEST.PROGRESS_PERIOD", 1)
    interrupted(run_cfg(*options), calibrated, after=4)
    calibrated.calibration, seen = Calibration(0.70001, -0.2, "toy_train", 10), []
    calibrated.encoder.register_forward_pre_hook(lambda *_: seen.append(1))
    evaluate(run_cfg(*options), calibrated)
    assert len(seen) == 7
