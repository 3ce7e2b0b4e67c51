"""Several threads predict with one model: each gets what it would get alone, and the model stays as it was."""

import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import err_seg
from err_seg.prediction.attention import record_attention
from err_seg.text import cache
from err_seg.utils import device
from err_seg.utils.device import autocast
from err_seg.utils.validation import ArgumentError
from tests.helpers.toy import VOCABULARY

THREADS = 4


@pytest.fixture
def many_images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (32 + 8 * (i % 3), 40, 3), dtype=np.uint8) for i in range(40)]


def test_threads_get_what_one_thread_gets(toy_model, many_images):
    """With stochastic depth that would drop most of ESCF, were it not in evaluation mode throughout."""
    model = toy_model("MODEL.ESCF.DROP_PATH", 0.9)
    alone = [model.predict([image], VOCABULARY)[0].probabilities for image in many_images]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda image: model.predict([image], VOCABULARY)[0].probabilities, many_images))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(together, alone, strict=True))
    assert not any(module.training for module in model.modules())


def test_a_call_that_ends_within_another_leaves_it_alone(toy_model, images):
    """The second to reach ESCF goes on when the call of the first has ended."""
    model = toy_model("MODEL.ESCF.DROP_PATH", 0.9)
    expected = model.predict(images[:1], VOCABULARY)[0].probabilities
    number, second_is_here, first_has_ended = itertools.count(), threading.Event(), threading.Event()

    def meet(*_):
        if next(number) == 0:
            assert second_is_here.wait(10)
        else:
            second_is_here.set()
            assert first_has_ended.wait(10)

    def predict(_):
        probabilities = model.predict(images[:1], VOCABULARY)[0].probabilities
        first_has_ended.set()
        return probabilities

    model.head.escf.register_forward_pre_hook(meet)
    with ThreadPoolExecutor(2) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(predict, range(2)))
    assert not model.training


@pytest.mark.parametrize("lock", ["words", "TF32"])
def test_a_process_forked_while_another_thread_computes_does_not_wait_for_that_thread(toy_model, monkeypatch, lock):
    """The lock was held in the child as well, by a thread that is not there."""
    model, started, over = toy_model(), threading.Event(), threading.Event()
    expected = model.embed_vocabulary(("dog", "cat"))
    encode = cache.encode_in_batches

    def wait():
        started.set()
        over.wait()

    def hold():
        if lock == "words":
            monkeypatch.setattr(cache, "encode_in_batches", lambda *arguments: wait() or encode(*arguments))
            model.embed_vocabulary(("sky", "tree"))
        else:
            with device._tf32_lock:
                wait()

    model.vocabulary_encoder.embeddings._memory.clear()
    thread = threading.Thread(target=hold)
    thread.start()
    started.wait()
    monkeypatch.setattr(cache, "encode_in_batches", encode)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        os._exit(0 if torch.equal(model.embed_vocabulary(("dog", "cat")), expected) else 1)
    over.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_model_in_training_mode_is_refused_and_left_alone(toy_model, images):
    model = toy_model().train()
    for part in (model, model.head.escf):
        part.train()
        with pytest.raises(ArgumentError, match=r"model\.eval\(\)"):
            model.predict(images[:1], VOCABULARY)
        assert part.training
        model.eval()
    model.predict(images[:1], VOCABULARY)


def test_models_are_built_for_evaluation(toy_cfg):
    assert not any(module.training for module in err_seg.build_model(toy_cfg()).modules())


def test_settings_are_read_when_a_call_begins(toy_model, images, monkeypatch):
    """Another thread may change them between two images of a call."""
    model = toy_model()
    expected = model.predict(images, VOCABULARY)
    forward = model.forward

    def meddle(*arguments, **options):
        model.head.crm.num_kept, model.size, model.precision = 2, 96, "bf16"
        return forward(*arguments, **options)

    monkeypatch.setattr(model, "forward", meddle)
    for ours, theirs in zip(model.predict(images, VOCABULARY), expected, strict=True):
        assert torch.equal(ours.probabilities, theirs.probabilities)


@torch.no_grad()
def test_precisions_of_threads_do_not_mix():
    """Torch's cache of weights that autocast has cast is one for all threads; ours is switched off."""
    layer, x = torch.nn.Linear(8, 8), torch.randn(2, 8)
    is_cast, is_done = threading.Event(), threading.Event()

    def other():
        with autocast(torch.device("cpu"), torch.bfloat16):
            layer(x)
            is_cast.set()
            is_done.wait(10)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(other)
        try:
            assert is_cast.wait(10)
            with autocast(torch.device("cpu"), torch.float16):
                assert layer(x).dtype == torch.float16
                with torch.enable_grad():
                    assert layer(x).requires_grad
        finally:
            is_done.set()


def test_attention_is_recorded_of_ones_own_image(toy_model, many_images):
    model = toy_model()
    alone = [record_attention(model, image, VOCABULARY) for image in many_images]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda image: record_attention(model, image, VOCABULARY), many_images))
    for ours, theirs in zip(together, alone, strict=True):
        for layer, expected in zip(ours.spatial + ours.category, theirs.spatial + theirs.category, strict=True):
            assert layer.grid == expected.grid
            assert torch.equal(layer.queries, expected.queries)
            assert torch.equal(layer.keys, expected.keys)
