"""The configuration of a toy network, its vocabulary, and where things lie."""

from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
GOLDEN = TESTS / "golden"
SHARED = REPOSITORY.parent / "shared"

TOY = [
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.CLIP.NAME", str(TESTS / "helpers/toy_clip.json")),
    *("MODEL.TEXT.CACHE_DIR", "none"),
    *("MODEL.CRM.NUM_KEPT", 4),
    *("MODEL.CRM.NUM_KEPT_TRAIN", 4),
    *("MODEL.COST_EMBEDDING.HIDDEN_DIM", 8),
    *("MODEL.COST_EMBEDDING.DIM", 16),
    *("MODEL.ESCF.NUM_LAYERS", 2),
    *("MODEL.ESCF.GUIDANCE_DIM", 8),
    *("MODEL.ESCF.GUIDANCE_HIDDEN_DIM", 8),
    *("MODEL.GUD.DIMS", [16, 8, 8]),
    *("MODEL.GUD.GUIDANCE_DIMS", [8, 4, 4]),
    *("INPUT.SIZE", 64),
    *("INPUT.CROP_SIZE", 64),
    *("INPUT.MIN_SIZE_TRAIN", [64]),
    *("INPUT.MIN_SIZE_TEST", 64),
    *("DATALOADER.NUM_WORKERS", 0),
]
VOCABULARY = ("cat", "grass", "sky", "tree", "dog", "sofa, couch", "traffic light")


def liven(model):
    """Give a random network the contrasts that training would: scale what is initialised to next to nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            elif parameter.dim() > 1 and not name.startswith("encoder.clip.token"):
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
