"""Everything behind CLIP against reference outputs, stage by stage, with loss and gradients."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from err_seg.modeling import CRM, ESCF, GUD, CostEmbedding, Head, segmentation_loss
from err_seg.modeling.encoder import Features
from err_seg.modeling.escf import CFM, SFM, ESCFLayer, ImageGuidance, TextGuidance
from err_seg.modeling.gud import UpsamplingStage
from err_seg.models.checkpoint_names import current_name, current_names
from err_seg.utils.device import PRECISIONS, autocast
from tests.helpers.synthetic import synthetic
from tests.helpers.toy import TESTS


def build_decoder(dims):
    dim, image_dims, decoder_dims = dims["aggregator_dim"], dims["image_guidance_dims"], dims["decoder_dims"]
    image_dim, text_dim = dims["guidance_fpn_fusion_dim"], dims["text_guidance_proj_dim"]
    layers = [
        ESCFLayer(sfm=SFM(dim=dim, guidance_dim=image_dim, ssr_ratio=ratio), cfm=CFM(dim=dim, guidance_dim=text_dim))
        for ratio in dims["aggregator_scale_ratio"]
    ]
    hidden = dims["guidance_fpn_inter_dim"]
    escf = ESCF(
        layers=layers,
        image_guidance=ImageGuidance(in_dims=image_dims[:2], hidden_dim=hidden, dim=image_dim),
        text_guidance=TextGuidance(in_dim=dims["text_guidance_dim"], dim=text_dim),
    )
    stages = [
        # the reference detaches F1 and F2 earlier, in the encoder that these files leave out
        UpsamplingStage(
            in_dim=in_dim,
            out_dim=out,
            feature_dim=feature,
            guidance_dim=guidance,
            scale=scale,
            stop_gradient=scale == 1,
        )
        for in_dim, out, feature, guidance, scale in zip(
            [dim, *decoder_dims[:-1]],
            decoder_dims,
            dims["decoder_guidance_dims"],
            dims["guidance_proj_dims"],
            (1, 2, 2),
            strict=True,
        )
    ]
    return Head(
        crm=CRM(num_kept=dims["sample_classes_num"], num_kept_train=dims["sample_classes_num"]),
        cost_embedding=CostEmbedding(hidden_dim=dims["corr_fpn_inter_dim"], dim=dim),
        escf=escf,
        gud=GUD(stages=stages, dim=decoder_dims[-1]),
    )


@pytest.fixture(params=["tiny", "hard"])
def golden(request):
    """The reference, and our decoder with its weights and inputs."""
    facts = json.loads((TESTS / "golden" / f"decoder_{request.param}.json").read_text())
    dims, tag, scales = facts["dims"], facts["tag"], facts.get("weight_scales", {})
    state = {}
    for name, shape in facts["params"].items():
        scale = next((scale for ending, scale in scales.items() if name.endswith(ending)), 1.0)
        state[f"sem_seg_head.decoder.{name}"] = scale * synthetic(f"{tag}decoder.{name}", shape)
    model = build_decoder(dims)
    torch.nn.ModuleDict({"head": model}).load_state_dict(current_names(state), strict=True)

    b, t, h, w = (facts[axis] for axis in "BTHW")
    channels = dims["text_guidance_dim"]
    shapes = {"os16_dense": (b, channels, h, w), "os32_dense": (b, channels, h // 2, w // 2), "text": (t, channels)}
    inputs = {name: synthetic(f"{tag}input.{name}", shape).requires_grad_() for name, shape in shapes.items()}
    for stride, dim in zip((32, 16, 8, 4), dims["image_guidance_dims"], strict=True):
        value = synthetic(f"{tag}input.os{stride}", (b, dim, 16 * h // stride, 16 * w // stride))
        inputs[f"os{stride}"] = (value * facts.get("guidance_scale", 4)).requires_grad_()
    f4, f3, f2, f1 = (inputs[f"os{stride}"].clamp(-16, 16) for stride in (32, 16, 8, 4))
    features = Features((inputs["os16_dense"], inputs["os32_dense"]), deep=(f4, f3), shallow=(f3, f2, f1))
    reference = np.load(TESTS / "golden" / f"decoder_{request.param}.npz")
    return SimpleNamespace(model=model, features=features, inputs=inputs, reference=reference, num_classes=t)


def assert_close(ours, reference, tolerance=1e-5):
    """Compare relative to the largest value of the entry."""
    ours = ours.detach().numpy()
    assert ours.shape == reference.shape
    assert np.abs(ours - reference).max() <= tolerance * max(np.abs(reference).max(), 1e-12)


def test_every_stage_in_evaluation(golden):
    stages = {}

    def keep(name, take=lambda output: output):
        return lambda module, inputs, output: stages.update({name: take(output)})

    def class_maps(x):
        return x.permute(0, 1, 4, 2, 3).flatten(0, 1)

    model, reference = golden.model.eval(), golden.reference
    model.cost_embedding.register_forward_hook(keep("sfm1_in"))
    model.escf.layers[0].sfm.register_forward_hook(keep("sfm1_out", class_maps))
    model.escf.layers[0].cfm.register_forward_hook(keep("cfm1_out", class_maps))
    model.escf.register_forward_hook(keep("gud_in"))
    model.gud.stages[-1].register_forward_hook(keep("gud_out"))
    with torch.no_grad():
        out = model(golden.features, golden.inputs["text"])

    for cost, stride in zip(model.cost_maps(golden.features, golden.inputs["text"]), (16, 32), strict=True):
        assert_close(cost, reference[f"eval.cost{stride}"])
    assert_close(out.class_scores, reference["eval.scores"])
    assert np.array_equal(out.kept, reference["eval.indices"])
    for name in ("sfm1_in", "sfm1_out", "cfm1_out", "gud_in", "gud_out"):
        assert_close(stages[name], reference[f"eval.{name}"])
    dense = torch.from_numpy(reference["eval.logits"])
    kept_logits = dense.gather(1, out.kept[:, :, None, None].expand_as(out.logits))
    torch.testing.assert_close(out.logits, kept_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("fp16", 0.003), ("bf16", 0.02)])
def test_probabilities_in_lower_precision(golden, precision, error):
    model, reference = golden.model.eval(), golden.reference
    kept = torch.from_numpy(reference["eval.indices"]).long()
    with torch.no_grad(), autocast(torch.device("cpu"), PRECISIONS[precision]):
        logits = model.segment(golden.features, golden.inputs["text"], kept)
    exact = torch.from_numpy(reference["eval.logits"]).gather(1, kept[:, :, None, None].expand_as(logits))
    assert (logits.float().sigmoid() - exact.sigmoid()).abs().max() <= error


def test_training_loss_and_gradients(golden):
    model, reference, inputs = golden.model.train(), golden.reference, golden.inputs
    kept = torch.from_numpy(reference["train.indices"]).long()
    # the reference fills the K places by ascending index: take its classes
    model.crm.forward = lambda cost, num_kept, class_pixels, others: (kept, None)
    labels = torch.from_numpy(reference["train.target"]).long()
    out = model(golden.features, inputs["text"], labels=labels)
    loss = segmentation_loss(out.logits, out.kept, labels, golden.num_classes)
    loss.backward()

    assert loss.item() == pytest.approx(float(reference["train.loss"]), abs=1e-6)
    for name, key in (("os16_dense", "os16"), ("os32_dense", "os32"), ("text", "text")):
        assert_close(inputs[name].grad, reference[f"train.inputgrad.{key}"])
    for stride in (32, 16, 8, 4):
        norm = inputs[f"os{stride}"].grad.norm().item()
        assert norm == pytest.approx(float(reference[f"train.inputgradnorm.os{stride}"]), rel=1e-4)
    parameters = dict(model.named_parameters())
    norms = [key for key in reference.files if key.startswith("train.gradnorm.")]
    assert len(norms) == len(parameters)
    for key in norms:
        name = current_name("sem_seg_head.decoder." + key.removeprefix("train.gradnorm.")).removeprefix("head.")
        assert parameters[name].grad.norm().item() == pytest.approx(float(reference[key]), rel=1e-4, abs=1e-6), name
