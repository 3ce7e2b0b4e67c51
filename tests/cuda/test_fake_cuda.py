"""Everything that runs on a GPU, run on one that is not there: no device mismatch, no waiting, losses in float32."""

from types import SimpleNamespace

import pytest
import torch

import err_seg
from err_seg.data import Batch
from err_seg.engine.step import training_loss
from err_seg.evaluation import BoundaryConfusion, ConfusionMatrix
from err_seg.evaluation.tta import View, segment_views
from err_seg.text.cache import encode_in_batches
from err_seg.utils.device import PRECISIONS, autocast
from tests.helpers.fake_cuda import CUDA, NoWaiting, build_shape, move_to_fake
from tests.helpers.toy import REPOSITORY

SHIPPED = sorted(file for file in REPOSITORY.glob("configs/**/*.yaml") if file.parent.name != "ablations")
SMALL = ["MODEL.CLIP.PRETRAINED", "", "MODEL.WEIGHTS", "", "INPUT.SIZE", 128, "INPUT.CROP_SIZE", 64]
SMALL += ["MODEL.CRM.MIN_SCORE", 0]  # K by need has to wait for the device to say how many classes those are
T_TRAIN, T = 171, 847
SIZES = [(96, 120), (50, 70)]


def shipped_networks():
    """The shipped configurations, of those with the same network one."""
    configured = {file: err_seg.get_cfg(file, SMALL) for file in SHIPPED}
    different = {cfg.MODEL.dump(): (file, cfg) for file, cfg in reversed(configured.items())}
    return [
        pytest.param(
            cfg,
            id=str(file.relative_to(REPOSITORY / "configs")),
            marks=pytest.mark.slow if file.stem.endswith("_l") else (),  # larger, but made of the same parts
        )
        for file, cfg in different.values()
    ]


@pytest.fixture(scope="module", params=shipped_networks())
def shape(request):
    """The configuration and a network without numbers."""
    return request.param, build_shape(request.param)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_runs_on_cuda_without_mismatch_and_without_waiting(shape, fake_cuda, monkeypatch, precision):
    cfg, model = shape[0], move_to_fake(shape[1])
    model.precision = precision
    assert model.device == CUDA
    with NoWaiting():
        check_training(cfg, model.train(), PRECISIONS[precision])
        check_evaluation(model.eval(), monkeypatch)


def check_training(cfg, model, dtype):
    spec = SimpleNamespace(vocabulary=range(T_TRAIN))
    images, labels = torch.empty(2, 3, 64, 64, dtype=torch.uint8), torch.empty(2, 64, 64, dtype=torch.int64)
    tokens = torch.empty(T_TRAIN, 1, 9, dtype=torch.int64, device=CUDA)
    with autocast(CUDA, dtype):
        loss = training_loss(model, model, Batch(images, labels, ["a", "b"]), tokens, spec, cfg)["sem_seg"]
    assert (loss.dtype, loss.device, loss.shape) == (torch.float32, CUDA, ())
    assert loss.requires_grad


def check_evaluation(model, monkeypatch):
    images = [torch.empty(3, *size, dtype=torch.uint8) for size in SIZES]
    vocabulary = tuple(f"class {i}" for i in range(T))
    with torch.no_grad(), model.evaluating():
        some = encode_in_batches(model.encoder.clip, torch.empty(20, 2, 9, dtype=torch.int64))
        assert (some.dtype, some.device, some.shape) == (torch.float32, CUDA, (20, model.encoder.embedding_dim))
        text = torch.empty(T, model.encoder.embedding_dim, device=CUDA)
        views = [View(128, False), View(128, True)]
        results = segment_views(model, images, text, None, vocabulary, SIZES, views)
        results += model.compact(model(model.preprocess(images), text, 24), vocabulary, SIZES)
    for result, size in zip(results, SIZES * 2, strict=True):
        assert result.labels.shape == result.scores.shape == size
        assert result.maps.shape == (len(result.kept), *size)
        assert result.dense().shape == (T, *size)
        for tensor in (result.labels, result.scores, result.maps, result.class_scores):
            assert tensor.device == CUDA
        for tensor in (result.scores, result.maps, result.class_scores, result.probabilities):
            assert tensor.dtype == torch.float32
    check_counting(results[0].labels, monkeypatch)


def check_counting(labels, monkeypatch):
    """Counters read values back to check them; the counting itself does not."""
    monkeypatch.setattr(ConfusionMatrix, "_check_values", lambda *_: None)
    truth = torch.empty(labels.shape, dtype=torch.uint16).to(CUDA)
    counters = [ConfusionMatrix(T, 65535, device=CUDA), BoundaryConfusion(T, 65535, device=CUDA)]
    for counter in counters:
        counter.update(labels, truth)
    assert counters[0].matrix.shape == (T, T)
    assert counters[0].matrix.device == CUDA


@pytest.mark.parametrize(
    "wait",
    [
        lambda maps: maps.sum().item(),
        lambda maps: bool((maps > 0).any()),
        lambda maps: maps[maps > 0],
        lambda maps: maps.nonzero(),
        lambda maps: maps.cpu(),
        lambda maps: maps.index_put((maps > 0,), torch.zeros((), device=CUDA)),
        lambda maps: torch.bincount(maps.long().flatten()),
        lambda maps: torch.empty(4, 4).copy_(maps),
    ],
)
def test_waiting_is_noticed(fake_cuda, wait):
    maps = torch.empty(4, 4, device=CUDA)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        wait(maps)


def test_a_tensor_left_on_the_cpu_is_noticed(fake_cuda):
    with pytest.raises(RuntimeError, match="device"):
        torch.empty(4, 4, device=CUDA) + torch.empty(4, 4)
