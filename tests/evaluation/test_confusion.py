import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from err_seg.evaluation import BoundaryConfusion, ConfusionMatrix
from tests.helpers.fake_cuda import CUDA

IGNORE = 255


def counted(prediction, label, num_classes, background=None):
    """Count pixel by pixel in Python."""
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    for p, g in zip(np.ravel(prediction), np.ravel(label), strict=True):
        if g != IGNORE:
            matrix[p if background is None else min(p, background), g] += 1
    return matrix


@st.composite
def images(draw, num_classes=4):
    shape = draw(npst.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=5))
    prediction = draw(npst.arrays(np.int64, shape, elements=st.integers(0, num_classes - 1)))
    label = draw(npst.arrays(np.int64, shape, elements=st.sampled_from([*range(num_classes), IGNORE])))
    return prediction, label


def test_rows_are_predictions_and_columns_ground_truth():
    confusion = ConfusionMatrix(3, IGNORE)
    confusion.update(torch.tensor([[0, 0, 1], [2, 2, 2]]), torch.tensor([[0, 1, 1], [1, 1, IGNORE]]))
    assert confusion.matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 2, 0]]
    assert confusion.matrix.dtype == torch.int64


@settings(deadline=None)
@given(st.lists(images(), max_size=4))
def test_agrees_with_counting_pixel_by_pixel(batch):
    confusion = ConfusionMatrix(4, IGNORE)
    expected = np.zeros((4, 4), dtype=np.int64)
    for prediction, label in batch:
        confusion.update(torch.from_numpy(prediction), torch.from_numpy(label))
        expected += counted(prediction, label, 4)
    np.testing.assert_array_equal(confusion.matrix.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_every_integer_dtype_counts_alike(dtype):
    confusion = ConfusionMatrix(2, IGNORE)
    confusion.update(torch.tensor([[0, 1, 1]]).to(dtype), torch.tensor([[0, 0, IGNORE]]).to(dtype))
    assert confusion.matrix.tolist() == [[1, 0], [1, 0]]


def test_sixteen_bit_labels_with_many_classes():
    confusion = ConfusionMatrix(847, 65535)
    label = torch.tensor([[846, 300, 65535]], dtype=torch.uint16)
    confusion.update(torch.tensor([[846, 299, 0]]), label)
    assert confusion.matrix.sum() == 2
    assert confusion.matrix[846, 846] == 1
    assert confusion.matrix[299, 300] == 1


def test_the_ignore_label_may_follow_the_last_class():
    confusion = ConfusionMatrix(459, 459)
    confusion.update(torch.tensor([[458, 458]]), torch.tensor([[458, 459]]))
    assert confusion.matrix.sum() == 1


def test_predictions_on_ignored_pixels_never_count_whatever_they_are():
    confusion = ConfusionMatrix(2, IGNORE)
    confusion.update(torch.tensor([[-7, 99, 1]]), torch.tensor([[IGNORE, IGNORE, 1]]))
    assert confusion.matrix.tolist() == [[0, 0], [0, 1]]


def test_pas20b_counts_every_prediction_from_20_as_background():
    prediction = torch.arange(59).reshape(1, 59)
    label = torch.full((1, 59), 20)
    label[0, :20] = torch.arange(20)
    label[0, 30] = 3
    confusion = ConfusionMatrix(21, IGNORE, background=20)
    confusion.update(prediction, label)
    expected = counted(prediction.numpy(), label.numpy(), 21, background=20)
    np.testing.assert_array_equal(confusion.matrix.numpy(), expected)
    assert confusion.matrix[20, 20] == 38
    assert confusion.matrix[20, 3] == 1
    assert prediction.max() == 58  # the caller's tensor is as it was


@pytest.mark.parametrize(
    ("prediction", "label", "background", "message"),
    [
        ([[0, 3]], [[0, 1]], None, r"prediction holds 3, expected 0\.\.2"),
        ([[0, -1]], [[0, 1]], None, r"prediction holds -1, expected 0\.\.2"),
        ([[0, -1]], [[0, 1]], 2, r"prediction holds -1, expected 0 and above"),
        ([[0, 1]], [[0, 3]], None, r"label holds 3, expected 0\.\.2 or the ignore label 255"),
        ([[0, 1]], [[0, -1]], None, r"label holds -1, expected 0\.\.2"),
        ([[0, 1]], [[0, 3]], 2, r"label holds 3"),
        ([[0, 1]], [[0], [1]], None, r"one shape .* found \(1, 2\) and \(2, 1\)"),
        ([0, 1], [0, 1], None, r"one shape"),
    ],
)
def test_bad_images_are_refused_and_leave_the_counts_alone(prediction, label, background, message):
    confusion = ConfusionMatrix(3, IGNORE, background)
    with pytest.raises(ValueError, match=message):
        confusion.update(torch.tensor(prediction), torch.tensor(label))
    assert confusion.matrix.sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_only_integers_are_class_indices(dtype):
    wrong, right = torch.zeros(1, 1, dtype=dtype), torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"^prediction must hold integer"):
        ConfusionMatrix(2, IGNORE).update(wrong, right)
    with pytest.raises(TypeError, match=r"^label must hold integer"):
        ConfusionMatrix(2, IGNORE).update(right, wrong)


def test_a_single_class():
    confusion = ConfusionMatrix(1, IGNORE)
    confusion.update(torch.tensor([[0, 0, 7]]), torch.tensor([[0, IGNORE, IGNORE]]))
    assert confusion.matrix.tolist() == [[1]]


@pytest.mark.parametrize("arguments", [(0, 255), (3, 2), (3, 0), (3, 255, 1), (3, 255, 3)])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=r"num_classes|ignore_label|background"):
        ConfusionMatrix(*arguments)


@settings(deadline=None)
@given(st.lists(images(), min_size=2, max_size=5), st.integers(0, 5))
def test_parts_merged_are_the_whole(batch, cut):
    whole, first, second = (ConfusionMatrix(4, IGNORE) for _ in range(3))
    for index, (prediction, label) in enumerate(batch):
        for confusion in (whole, first if index < cut else second):
            confusion.update(torch.from_numpy(prediction), torch.from_numpy(label))
    resumed = ConfusionMatrix.from_state(json.loads(json.dumps(first.state())))
    assert torch.equal((first + second).matrix, whole.matrix)
    assert torch.equal(resumed.merge(second).matrix, whole.matrix)


def test_a_sum_leaves_its_parts_alone():
    one = ConfusionMatrix(2, IGNORE)
    one.update(torch.tensor([[0]]), torch.tensor([[1]]))
    assert (one + one).matrix.tolist() == [[0, 2], [0, 0]]
    assert one.matrix.tolist() == [[0, 1], [0, 0]]


def test_different_benchmarks_do_not_merge():
    for other in (ConfusionMatrix(3, IGNORE), ConfusionMatrix(2, 65535), ConfusionMatrix(2, IGNORE, background=1)):
        with pytest.raises(ValueError, match="different settings"):
            ConfusionMatrix(2, IGNORE).merge(other)


def test_counts_beyond_float_and_32_bit_precision_stay_exact():
    state = {"num_classes": 2, "ignore_label": 255, "background": None}
    large = ConfusionMatrix.from_state({**state, "entries": [[0, 0, 2**53], [1, 0, 2**31]]})
    small = ConfusionMatrix.from_state({**state, "entries": [[0, 0, 1], [1, 0, 1]]})
    total = large + small
    total.update(torch.tensor([[1]]), torch.tensor([[0]]))
    assert total.matrix.tolist() == [[2**53 + 1, 0], [2**31 + 2, 0]]
    assert ConfusionMatrix.from_state(json.loads(json.dumps(total.state()))).matrix.tolist() == total.matrix.tolist()


def test_a_state_keeps_its_settings_and_adds_entries_of_one_cell():
    state = ConfusionMatrix(3, IGNORE, background=2).state()
    resumed = ConfusionMatrix.from_state({**state, "entries": [[0, 2, 3], [0, 2, 4], [1, 1, 0]]})
    assert resumed.state() == {**state, "entries": [[0, 2, 7]]}


@pytest.mark.parametrize("entry", [[2, 0, 1], [-1, 0, 1], [0, 2, 1], [0, -1, 1], [0, 0, -1]])
def test_a_damaged_state_is_refused(entry):
    state = ConfusionMatrix(2, IGNORE).state()
    with pytest.raises(ValueError, match="outside classes"):
        ConfusionMatrix.from_state({**state, "entries": [entry]})
    del state["entries"]
    with pytest.raises(ValueError, match="missing: entries"):
        ConfusionMatrix.from_state(state)


def test_all_reduce_alone_changes_nothing():
    confusion = ConfusionMatrix(2, IGNORE)
    confusion.update(torch.tensor([[0]]), torch.tensor([[1]]))
    assert confusion.all_reduce().matrix.tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(("backend", "device", "meeting"), [("nccl", "cpu", "cuda"), ("gloo", "cuda", "cpu")])
def test_counts_are_summed_where_the_backend_can_sum(fake_cuda, monkeypatch, backend, device, meeting):
    seen = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: seen.append((counts.device.type, counts.shape)))
    confusion = ConfusionMatrix(3, IGNORE, device=device)
    assert confusion.all_reduce() is confusion
    assert seen == [(meeting, (9,))]
    assert confusion.device.type == device


def test_the_sum_replaces_the_counts(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.mul_(3))
    confusion = ConfusionMatrix(2, IGNORE)
    confusion.update(torch.tensor([[0, 1]]), torch.tensor([[1, 1]]))
    assert confusion.all_reduce().matrix.tolist() == [[0, 3], [0, 3]]


@pytest.mark.parametrize("kind", [ConfusionMatrix, BoundaryConfusion])
def test_counts_stay_on_their_device(fake_cuda, monkeypatch, kind):
    monkeypatch.setattr(ConfusionMatrix, "_check_values", lambda *_: None)  # on the CPU: no value may be read here
    confusion, label = kind(3, 65535, device=CUDA), torch.empty(2, 8, 8, dtype=torch.uint16)
    for prediction, truth in ((label, label), (label.to(CUDA), label), (label, label.to(CUDA))):
        confusion.update(prediction, truth)
    counters = [confusion] if kind is ConfusionMatrix else [confusion, confusion.bands]
    assert all(counter.device == CUDA for counter in counters)
    assert confusion.merge(kind(3, 65535)).device == CUDA
    assert kind(3, 65535).merge(confusion).device.type == "cpu"


@pytest.mark.parametrize("kind", [ConfusionMatrix, BoundaryConfusion])
def test_a_state_is_rebuilt_on_the_device_asked_for(kind):
    state = kind(3, IGNORE).state()
    rebuilt = kind.from_state(state, "meta")
    assert rebuilt.device.type == "meta"
    assert kind is ConfusionMatrix or rebuilt.bands.device.type == "meta"


# Runs the module's file alone: importing the whole package in every process would take the test's time.
WORKER = """
import runpy, sys, torch, torch.distributed as dist
ConfusionMatrix = runpy.run_path(sys.argv[3])["ConfusionMatrix"]
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
confusion = ConfusionMatrix(2, 255)
confusion.update(torch.tensor([[0, 1]]), torch.tensor([[rank, rank]]))
assert confusion.all_reduce().matrix.tolist() == [[1, 1], [1, 1]], confusion
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")
def test_all_reduce_sums_over_processes(tmp_path):
    module = inspect.getfile(ConfusionMatrix)
    meeting = str(tmp_path / "meeting")
    ranks = [subprocess.Popen([sys.executable, "-c", WORKER, str(rank), meeting, module]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_counts_as_the_cpu_does():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, 171, (2, 64, 64), generator=generator)
    label = torch.randint(0, 172, (2, 64, 64), generator=generator)
    label[label == 171] = IGNORE
    cpu, cuda = ConfusionMatrix(171, IGNORE), ConfusionMatrix(171, IGNORE, device="cuda")
    cpu.update(prediction, label)
    cuda.update(prediction.cuda(), label.cuda())
    assert torch.equal(cuda.matrix.cpu(), cpu.matrix)
