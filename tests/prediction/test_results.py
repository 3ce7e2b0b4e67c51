"""What results hold, how much memory they take, and where they lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from err_seg import NonFiniteError, Segmentation, TooLargeError
from err_seg.data.images import read_label as load_label_png
from err_seg.jobs import parse_label_set
from err_seg.prediction import class_maps
from err_seg.visualization.label_files import rle_segments, save_label_png
from tests.helpers.results import a_result
from tests.helpers.toy import VOCABULARY

TWELVE_MEGAPIXELS = (3000, 4000)


def held_bytes(result):
    """Count the bytes of all tensors that a result holds on to."""
    return sum(value.nbytes for value in vars(result).values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize(
    ("num_classes", "dtype"),
    [
        *((2, torch.uint8), (255, torch.uint8), (256, torch.int16), (847, torch.int16), (32767, torch.int16)),
        (32768, torch.int32),
    ],
)
def test_labels_have_the_smallest_type_that_holds_them(num_classes, dtype):
    result = a_result(num_classes, num_kept=2)
    assert result.labels.dtype == dtype
    assert torch.equal(result.labels.long(), result.kept[result.maps.argmax(dim=0)])
    # the last class of all is one of them
    last = Segmentation(result.probabilities[:1], torch.tensor([num_classes - 1]), *list(vars(result).values())[2:5])
    assert last.labels.unique().tolist() == [num_classes - 1]
    words = parse_label_set(last.vocabulary[:-1], [last.vocabulary[-1]])
    assert np.unique(words.labels(last)).tolist() == [-1]
    assert words.labels(last).dtype.itemsize == max(2, dtype.itemsize)


def test_looking_at_a_result_keeps_a_byte_a_pixel():
    """It kept 12: int64 labels and float32 scores, 581 MB of four 12-megapixel images."""
    result = a_result(size=TWELVE_MEGAPIXELS)
    before = held_bytes(result)
    for _ in range(2):
        assert result.scores.shape == TWELVE_MEGAPIXELS
        assert result.labels.shape == TWELVE_MEGAPIXELS
        assert result.maps.shape == (4, *TWELVE_MEGAPIXELS)
        assert held_bytes(result) - before == 12_000_000
    assert result.labels is result.labels


def test_a_threshold_is_for_scores():
    result = a_result()
    words = parse_label_set(result.vocabulary, ["0.7"])
    expected = np.where(result.scores.numpy() < 0.7, -1, result.labels.numpy().astype(int))
    assert (expected == -1).any()
    assert (words.labels(result) == expected).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("num_classes", [7, 300])
def test_files_are_the_same_whatever_type_labels_have(tmp_path, dtype, num_classes):
    names = [f"thing {i}" for i in range(num_classes)]
    labels = np.array([[0, 1, 6], [3, 2, 250 % num_classes]])
    ignored = 5 if np.issubdtype(dtype, np.unsignedinteger) else -1
    labels[0, 0] = ignored
    save_label_png(labels.astype(dtype), tmp_path / "labels.png", names, ignore_label=ignored)
    nothing = 255 if num_classes == 7 else 65535
    assert (load_label_png(tmp_path / "labels.png") == np.where(labels == ignored, nothing, labels)).all()
    found = rle_segments(labels.astype(dtype), "a", names, ignore_label=ignored)
    assert found == rle_segments(labels, "a", names, ignore_label=ignored)


def test_results_move_with_their_labels():
    """To a device that has no memory, for want of another."""
    result = a_result()
    assert "labels" not in vars(result.to("meta"))
    labels = result.labels
    moved = result.to("meta")
    assert vars(moved)["labels"].device.type == "meta"
    assert {t.device.type for t in (moved.probabilities, moved.kept, moved.class_scores)} == {"meta"}
    assert (moved.vocabulary, moved.size) == (result.vocabulary, result.size)
    here = result.cpu()
    assert here.labels is labels
    assert torch.equal(here.scores, result.scores)


def test_what_takes_most_of_the_memory_is_refused_by_its_size(monkeypatch):
    result = a_result(num_classes=100, num_kept=3, size=(100, 200))
    monkeypatch.setattr(class_maps, "PIXELS_AT_A_TIME", 100)
    for what, count, least in (
        (result.dense, 100, "100 classes × "),
        (lambda: result.maps, 3, "3 classes × "),
        (lambda: result.scores, 1, ""),
        (lambda: replace(result).labels, 1 / 4, ""),
    ):
        needed = 4 * count * 100 * 200
        monkeypatch.setattr(class_maps, "free_memory", lambda device, free=2 * needed: free)
        assert what().shape[-2:] == (100, 200)
        monkeypatch.setattr(class_maps, "free_memory", lambda device, free=2 * needed - 1: free)
        with pytest.raises(TooLargeError, match=rf" \({least}100 × 200 pixels in .* GB.*free on cpu; .*resized\(\)"):
            what()
    with pytest.raises(TooLargeError, match="`kept` and `maps`"):
        result.dense()
    monkeypatch.undo()
    assert result.labels.shape == result.size


def test_free_memory_of_this_machine():
    with pytest.raises(TooLargeError, match=r"\d+\.\d GB"):
        a_result(num_classes=10**6, size=TWELVE_MEGAPIXELS).dense()  # 48 TB


@pytest.mark.parametrize("options", [{}, {"tile": 40}, {"batch_size": 2}])
@pytest.mark.parametrize("entry", ["head.gud.head.bias", "head.cost_embedding.fuse.weight", "encoder.hsm.conv.weight"])
def test_what_is_not_finite_is_no_result(toy_model, images, entry, options):
    """It was class 0 everywhere, with a score of -1."""
    model = toy_model()
    model.predict(images, VOCABULARY, **options)
    model.state_dict()[entry].view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"output holds NaN or infinity: .*precision fp32"):
        model.predict(images, VOCABULARY, **options)
