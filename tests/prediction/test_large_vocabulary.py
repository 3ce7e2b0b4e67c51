"""Vocabularies of any length in the same memory."""

from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from err_seg.modeling import hsm
from err_seg.modeling.crm import CRM
from err_seg.modeling.encoder import Features
from err_seg.modeling.head import Head
from err_seg.modeling.hsm import CostEmbedding, CostMaps


def features(side, dim, generator):
    pixels = torch.randn(1, dim, side, side, generator=generator)
    return Features((pixels, pixels[..., ::2, ::2]), deep=(pixels[..., ::2, ::2], pixels), shallow=())


@pytest.mark.parametrize("at_a_time", [1, 7, 40, 1000])
def test_parts_choose_as_the_whole(monkeypatch, at_a_time):
    generator = torch.Generator().manual_seed(0)
    image, text = features(8, 16, generator), torch.randn(100, 16, generator=generator)
    crm, maps = CRM(num_kept=20).eval(), CostMaps()
    kept, scores = crm([maps(image, text)[0]])
    monkeypatch.setattr(hsm, "CLASSES_AT_A_TIME", at_a_time)
    parts, coarse = ([*cost] for cost in maps.of_vocabulary(image, text))
    assert max(part.shape[1] for part in parts) == min(at_a_time, 100)
    assert torch.cat(coarse, dim=1).shape == (1, 100, 4, 4)
    again, same_scores = crm(parts)
    assert torch.equal(kept, again)
    assert torch.equal(scores, same_scores)


def test_memory_does_not_grow_with_the_vocabulary():
    """The largest tensor that is made while choosing, for vocabularies of 2,000 and of 20,000 classes."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return result

    sizes = []
    for num_classes in (2_000, 20_000):
        image = features(40, 8, torch.Generator().manual_seed(0))
        text = torch.randn(num_classes, 8)
        with Largest() as largest:
            CRM(num_kept=32).eval()(CostMaps().of_vocabulary(image, text)[0])
        sizes.append(largest.size)
    assert sizes[0] == sizes[1] == hsm.CLASSES_AT_A_TIME * 40 * 40


def peak_of_allocations(work):
    """The most bytes that tensors made by ``work`` take at any moment."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events)), result


@pytest.mark.parametrize("num_classes", [1_000, 10_000])
def test_choosing_needs_at_most_300_mb(num_classes):
    """At S = 640 with the embeddings of ConvNeXt-B; features and text, which are there before, are not counted."""
    image = features(40, 640, torch.Generator().manual_seed(0))
    text = torch.randn(num_classes, 640)
    head = Head(crm=CRM(num_kept=32), cost_embedding=CostEmbedding(), escf=None, gud=torch.nn.Identity()).eval()
    peak, (kept, scores) = peak_of_allocations(lambda: head.choose(image, text))
    assert kept.shape == (1, 32)
    assert scores.shape == (1, num_classes)
    maps = min(num_classes, hsm.CLASSES_AT_A_TIME) * 40 * 40 * 4
    assert maps < peak < 300e6
