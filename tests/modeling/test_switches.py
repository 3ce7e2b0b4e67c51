"""Every switch of the ablation tables builds, runs and trains a step; whatever contradicts itself is refused."""

import pytest
import torch

import err_seg
from err_seg.config import ConfigError
from err_seg.modeling import segmentation_loss
from tests.helpers.toy import TESTS, VOCABULARY

VIT = (
    *("MODEL.CLIP.NAME", str(TESTS / "helpers/toy_vit.json")),
    *("MODEL.HSM.ENABLED", False),
    *("MODEL.GUD.GUIDANCE_DIMS", [0, 0, 0]),
)
FASTVIT = ("MODEL.CLIP.NAME", str(TESTS / "helpers/toy_fastvit.json"))
SWITCHES = {
    "all on": (),
    "V, no HSM": ("MODEL.HSM.ENABLED", False),
    "V, no CRM": ("MODEL.CRM.ENABLED", False),
    "V, no ESCF": ("MODEL.ESCF.ENABLED", False),
    "V, no GUD": ("MODEL.GUD.ENABLED", False),
    "V, nothing": (
        *("MODEL.HSM.ENABLED", False, "MODEL.CRM.ENABLED", False),
        *("MODEL.ESCF.ENABLED", False, "MODEL.GUD.ENABLED", False),
    ),
    "VI, E16": ("MODEL.HSM.STAGE4_GRADIENT", "E16"),
    "VI, E32": ("MODEL.HSM.STAGE4_GRADIENT", "E32"),
    "VII, R = 5": ("MODEL.CRM.NUM_RANKS", 5),
    "Fig. 6, b = 0.5": ("MODEL.CRM.RANK_DECAY", 0.5),
    "Fig. 7, K = 2": ("MODEL.CRM.NUM_KEPT_TRAIN", 2),
    "VIII, SFM only": ("MODEL.ESCF.CFM", False),
    "VIII, CFM only": ("MODEL.ESCF.SFM", False),
    "IX, plain MLP": ("MODEL.ESCF.STAR", False),
    "X, no SSR": ("MODEL.ESCF.SSR_RATIO", 1),
    "X, no CSR": ("MODEL.ESCF.CSR_RATIO", 1),
    "X, neither": ("MODEL.ESCF.SSR_RATIO", 1, "MODEL.ESCF.CSR_RATIO", 1),
    "XI, no F3": ("MODEL.GUD.GUIDANCE_DIMS", [0, 4, 4]),
    "XI, no stop-gradient": ("MODEL.GUD.STOP_GRADIENT", False),
    "XI, kernel 5": ("MODEL.GUD.KERNEL_SIZE", 5),
    "XI, kernel 7": ("MODEL.GUD.KERNEL_SIZE", 7),
    "XII, ViT": VIT,
    "XII, ViT, no GUD": (*VIT, "MODEL.GUD.ENABLED", False),
    "FastViT": FASTVIT,
    "FastViT, no HSM": (*FASTVIT, "MODEL.HSM.ENABLED", False),
    "FastViT, E16": (*FASTVIT, "MODEL.HSM.STAGE4_GRADIENT", "E16"),
    "FastViT, full": (*FASTVIT, "MODEL.CLIP.TEXT_TUNING", "full", "MODEL.CLIP.IMAGE_TUNING", "full"),
    "FastViT, drop-path": (*FASTVIT, "MODEL.CLIP.DROP_PATH", 0.2),
    "XIV, S = 96": ("INPUT.SIZE", 96),
    "II, image only": ("MODEL.CLIP.TEXT_TUNING", "none"),
    "II, frozen": ("MODEL.CLIP.TEXT_TUNING", "none", "MODEL.CLIP.IMAGE_TUNING", "none"),
    "II, full": ("MODEL.CLIP.TEXT_TUNING", "full", "MODEL.CLIP.IMAGE_TUNING", "full"),
    "HSM trains": ("MODEL.HSM.TRAIN_CONV", True),
    "several templates": ("MODEL.TEXT.TEMPLATES", ["a {}.", "a photo of a {}."], "MODEL.TEXT.SYNONYMS", "average"),
    "drop-path": ("MODEL.CLIP.DROP_PATH", 0.2, "MODEL.ESCF.DROP_PATH", 0.5),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_builds_trains_and_predicts(name, toy_model, toy_cfg, images):
    torch.manual_seed(0)
    model = toy_model(*SWITCHES[name])
    cfg = toy_cfg(*SWITCHES[name])
    labels = torch.randint(0, len(VOCABULARY), (2, 64, 64))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    model.train()
    out = model(torch.randn(2, 3, 64, 64), model.vocabulary_encoder.tokenize(VOCABULARY), labels=labels)
    segmentation_loss(out.logits, out.kept, labels, len(VOCABULARY)).backward()
    optimizer.step()

    kept = len(VOCABULARY) if not cfg.MODEL.CRM.ENABLED else cfg.MODEL.CRM.NUM_KEPT_TRAIN
    assert out.logits.shape == (2, kept, 16, 16)
    # stochastic depth may skip a module in one step, and a guided map may be shut by its ReLU6
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    for n, p in model.named_parameters():
        if not p.requires_grad:
            assert torch.equal(p, before[n]), n
    assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())

    result = model.eval().predict(images[:1], VOCABULARY)[0]
    assert result.labels.shape == images[0].shape[:2]
    assert torch.isfinite(result.scores).all()


def output_of(model):
    torch.manual_seed(0)
    model.eval()
    with torch.no_grad():
        return model(torch.randn(1, 3, 64, 64), model.embed_vocabulary(VOCABULARY), num_kept=100).logits


@pytest.mark.parametrize(
    "name",
    ["VI, E16", "VI, E32", "XI, no stop-gradient"],
)
def test_switches_of_the_gradient_leave_the_output_alone(name, toy_model):
    torch.testing.assert_close(output_of(toy_model(*SWITCHES[name])), output_of(toy_model()))


@pytest.mark.parametrize("kind", [(), FASTVIT], ids=["ConvNeXt", "FastViT"])
@pytest.mark.parametrize("branch", ["both", "E16", "E32"])
def test_which_map_trains_stage_4(branch, kind, toy_model):
    """Cutting the other map's contribution to the loss must not change stage 4's gradient."""
    torch.manual_seed(0)
    model = toy_model("MODEL.HSM.STAGE4_GRADIENT", branch, *kind).train()
    e16, e32 = model.encoder(torch.randn(1, 3, 64, 64)).embeddings
    weight = model.encoder.clip.visual.trunk.stages[3].blocks[0].mlp.fc1.weight
    for name, embeddings in (("E16", e16), ("E32", e32)):
        gradient = torch.autograd.grad(embeddings.square().sum(), weight, retain_graph=True, allow_unused=True)[0]
        assert (gradient is not None and gradient.abs().max() > 0) == (branch in ("both", name))


def test_stop_gradient_shields_the_trunk(toy_model):
    gradients = {}
    for stop in (True, False):
        model = toy_model("MODEL.GUD.STOP_GRADIENT", stop).train()
        maps = [torch.randn(1, c, s, s, requires_grad=True) for c, s in zip((48, 32, 24), (4, 8, 16), strict=True)]
        model.head.gud(torch.randn(2, 16, 4, 4), maps).sum().backward()
        gradients[stop] = [f.grad for f in maps]
    assert gradients[True] == [None, None, None]
    assert all(gradient is not None for gradient in gradients[False])


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ((*VIT, "MODEL.CLIP.DROP_PATH", 0.1), "MODEL.CLIP.DROP_PATH: the image tower of .*toy_vit.json does not"),
        ((*VIT, "MODEL.CLIP.HEAD_DROPOUT", 0.1), "MODEL.CLIP.HEAD_DROPOUT: the image tower of .* set it to 0"),
        ((*FASTVIT, "MODEL.CLIP.HEAD_DROPOUT", 0.1), "MODEL.CLIP.HEAD_DROPOUT: .*toy_fastvit.json does not support it"),
        (("MODEL.CLIP.NAME", str(TESTS / "helpers/toy_vit.json")), "MODEL.HSM.ENABLED must be False"),
        ((*VIT[:4], "MODEL.GUD.GUIDANCE_DIMS", [8, 4, 4]), "MODEL.GUD.GUIDANCE_DIMS"),
        (("MODEL.CLIP.NAME", "convnext_base_w_32"), "convnext_base_w_32"),
        (("MODEL.CLIP.PRETRAINED", "no_such_tag"), "no_such_tag"),
        (("MODEL.DEVICE", "abacus"), "abacus"),
    ],
)
def test_contradictions_found_when_building(overrides, complaint, toy_cfg):
    with pytest.raises(ValueError, match=complaint):
        err_seg.build_model(toy_cfg(*overrides))


def test_contradictory_escf():
    with pytest.raises(ConfigError, match=r"MODEL\.ESCF\.SFM"):
        err_seg.get_cfg(None, ["MODEL.ESCF.SFM", False, "MODEL.ESCF.CFM", False])
