"""Streams of images: in order, read ahead by a few, and in the same memory whatever their number."""

import itertools
import pickle
import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from err_seg import ImageReadError
from err_seg.prediction import stream as stream_module
from err_seg.utils.ordered_map import ordered_map
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def model(toy_model):
    return toy_model()


def test_a_stream_gives_what_predict_gives(model, images, tmp_path):
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number % 3}.png" for number in range(8)]
    expected = model.predict(files, VOCABULARY, num_kept=3, size=(20, 30))
    stream = model.predict_stream(iter(files), VOCABULARY, num_kept=3, size=(20, 30))
    for ours, theirs in zip(stream, expected, strict=True):
        assert torch.equal(ours.labels, theirs.labels)
    (one,) = model.predict_stream(files[0], VOCABULARY, num_kept=3, size=(20, 30))
    assert torch.equal(one.probabilities, expected[0].probabilities)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_endless_stream_is_read_as_it_is_used(model, images, batch_size):
    asked = itertools.count()
    stream = model.predict_stream(
        (images[next(asked) % 3] for _ in itertools.count()), VOCABULARY, batch_size=batch_size
    )
    assert next(asked) == 0
    for number, result in enumerate(itertools.islice(stream, 7)):
        assert result.size == images[(number + 1) % 3].shape[:2]
    stream.close()
    assert next(asked) <= 7 + 4 * batch_size + 1


def test_what_is_settled_around_a_result_is_the_callers(model, images):
    """Between results the caller may train other networks: neither gradients nor precision are changed for it."""
    model.precision = "bf16"
    for _ in model.predict_stream(images, VOCABULARY):
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")


def test_results_before_a_damaged_image_come_first(model, images):
    results = []
    with pytest.raises(ImageReadError, match=r"^image 3: missing\.jpg: no such file"):
        results.extend(model.predict_stream([*images, "missing.jpg", *images], VOCABULARY))
    assert len(results) <= 3  # extend keeps what came before the error
    stream = model.predict_stream([*images, "missing.jpg", *images], VOCABULARY)
    assert [next(stream).size for _ in images] == [image.shape[:2] for image in images]
    with pytest.raises(ImageReadError, match="image 3"):
        next(stream)


@pytest.mark.parametrize("damaged", range(6))
def test_a_batch_that_an_error_cuts_short_comes_first(model, images, damaged):
    """It was lost with the error: of five images before it, batches of three gave three results."""

    def frames(error):
        yield from (images[number % 3] for number in range(damaged))
        raise error

    expected = model.predict(list(itertools.islice(itertools.cycle(images), damaged)), VOCABULARY)
    missing = [images[number % 3] for number in range(damaged)] + ["missing.jpg"]
    for given, kind in ((missing, ImageReadError), (frames(RuntimeError()), RuntimeError)):
        stream = model.predict_stream(given, VOCABULARY, batch_size=3)
        for theirs in expected:
            assert torch.allclose(next(stream).probabilities, theirs.probabilities, atol=1e-5)
        with pytest.raises(kind):
            next(stream)


def test_no_thread_is_left(model, images):
    for _ in model.predict_stream(itertools.cycle(images), VOCABULARY):
        break
    stream = model.predict_stream(itertools.cycle(images), VOCABULARY)
    next(stream)
    stream.close()
    with pytest.raises(ImageReadError):
        model.predict([images[0], "missing.jpg"], VOCABULARY)
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_one_array_may_hold_frame_after_frame(model, images):
    frame = np.zeros((60, 70, 3), dtype=np.uint8)

    def frames():
        for value in range(0, 250, 25):
            frame[:] = value
            frame[:30] = 255 - value
            yield frame

    copies = [image.copy() for image in frames()]
    found = model.predict(frames(), VOCABULARY, batch_size=2)
    expected = model.predict(copies, VOCABULARY, batch_size=2)
    for ours, theirs, copy in zip(found, expected, copies, strict=True):
        assert torch.equal(ours.probabilities, theirs.probabilities)
        assert (ours.image == copy).all()


def test_a_result_reads_its_image_again_and_travels_to_other_processes(model, images, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(images[0]).save(path)
    with path.open("rb") as file:
        results = model.predict([path, images[0], path.read_bytes(), file], VOCABULARY)
    for result in results:
        assert (pickle.loads(pickle.dumps(result)).image == images[0]).all()
    path.unlink()
    with pytest.raises(ImageReadError, match=r"image 0: .*image\.png: no such file"):
        _ = results[0].image


def test_memory_does_not_grow_with_the_number_of_images(model, monkeypatch):
    """Neither images nor results are held: of 10,000 they would be 2 GB. The network is left out, to save time."""
    image = np.zeros((256, 256, 3), dtype=np.uint8)
    result = model.predict(image, VOCABULARY)
    for part in ("preprocess", "forward"):
        monkeypatch.setattr(model, part, lambda *_: None)
    monkeypatch.setattr(model, "compact", lambda *_: [replace(result, probabilities=result.probabilities.clone())])
    used, process = {}, psutil.Process()
    for number, _ in enumerate(model.predict_stream((image for _ in range(10_001)), VOCABULARY)):
        if number in (1_000, 10_000):
            used[number] = process.memory_info().rss
    assert used[10_000] - used[1_000] < 20e6


def test_threads_read_files_and_nothing_else(model, images, tmp_path, monkeypatch):
    """Of images in memory nothing is left to be read, and threads would only take time from the network."""
    calls = []

    def counted(*arguments, **options):
        calls.append(options)
        return ordered_map(*arguments, **options)

    monkeypatch.setattr(stream_module, "ordered_map", counted)
    expected = model.predict(iter(images), VOCABULARY)
    assert len(calls) == 1
    tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    for given in (list(images), tuple(tensors), [images[0], tensors[1], images[2]]):
        for ours, theirs in zip(model.predict(given, VOCABULARY), expected, strict=True):
            assert torch.equal(ours.probabilities, theirs.probabilities)
    model.predict(images[0], VOCABULARY)
    assert len(calls) == 1
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    model.predict([images[0], tmp_path / "a.png"], VOCABULARY)
    model.predict(tmp_path / "a.png", VOCABULARY)
    assert len(calls) == 3
