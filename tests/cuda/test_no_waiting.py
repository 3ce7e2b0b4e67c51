"""Training computes without asking the device for numbers, backward too, which cannot be had on fake tensors."""

from types import SimpleNamespace

import pytest
import torch

from err_seg.data import Batch
from err_seg.engine.step import training_loss, vocabulary_input
from err_seg.utils.device import PRECISIONS, autocast
from tests.helpers.fake_cuda import NoWaiting
from tests.helpers.toy import VOCABULARY


@pytest.mark.parametrize("negatives", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_forward_loss_and_backward_do_not_wait(toy_model, toy_cfg, precision, negatives):
    cfg = toy_cfg("MODEL.LOSS.IGNORED_ARE_NEGATIVES", negatives)
    model, spec = toy_model().train(), SimpleNamespace(vocabulary=VOCABULARY)
    labels = torch.randint(0, len(VOCABULARY) + 1, (2, 64, 64))
    batch = Batch(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), labels, ["a", "b"])
    text = vocabulary_input(model, VOCABULARY)
    with NoWaiting():
        with autocast(model.device, PRECISIONS[precision]):
            loss = training_loss(model, model, batch, text, spec, cfg)["sem_seg"]
        loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    trained = [p for name, p in model.named_parameters() if p.requires_grad and not name.endswith("logit_scale")]
    assert all(parameter.grad is not None for parameter in trained)
