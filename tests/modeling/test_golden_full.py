"""The whole network, from a synthetic released checkpoint through its import, against reference outputs."""

import json

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.data import load_vocabulary
from tests.helpers.synthetic import synthetic
from tests.helpers.toy import GOLDEN, REPOSITORY

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference outputs of the full models are not here")


@pytest.mark.parametrize(("size", "num_kept"), [("b", 16), ("l", 12)])
def test_full_model(size, num_kept):
    reference = np.load(GOLDEN / f"full_{size}.npz")
    shapes = json.loads((GOLDEN / f"checkpoint_keys_{size}.json").read_text())
    config = REPOSITORY / "configs" / f"err_seg_convnext_{size}.yaml"
    overrides = ["MODEL.CLIP.PRETRAINED", "", "MODEL.TEXT.CACHE_DIR", "none", "MODEL.DEVICE", "cpu", "INPUT.SIZE", 320]
    model = err_seg.build_model(err_seg.get_cfg(config, overrides))
    err_seg.load_weights(model, {"model": {name: synthetic(name, shape) for name, shape in shapes.items()}})

    stages = {}
    model.encoder.register_forward_hook(lambda m, i, out: stages.update(features=out))
    model.head.cost_embedding.register_forward_hook(lambda m, i, out: stages.update(fused_cost=out))
    model.head.escf.image_guidance.register_forward_hook(lambda m, i, out: stages.update(img_guidance=out[0]))
    model.head.escf.text_guidance.register_forward_hook(lambda m, i, out: stages.update(text_guidance=out[0]))
    model.head.escf.layers[0].register_forward_hook(lambda m, i, out: stages.update(layer1_out=out[0]))
    model.head.gud.register_forward_hook(lambda m, i, out: stages.update(logits=out[:, 0]))
    vocabulary = load_vocabulary("pascal_voc_20")
    image = np.array(Image.open(GOLDEN / f"full_{size}_image.png"))
    result = model.predict([image], vocabulary, num_kept=num_kept)[0]

    def close(ours, name, tolerance=1e-4):
        expected = reference[name]
        assert ours.shape == expected.shape, name
        assert np.abs(np.asarray(ours.detach()) - expected).max() <= tolerance * np.abs(expected).max(), name

    close(model.embed_vocabulary(vocabulary), "text")
    e16, e32 = stages["features"].embeddings
    close(e16[0, :, ::4, ::4], "os16_dense")
    close(e32[0, :, ::2, ::2], "os32_dense")
    for cost, stride in zip(
        model.head.cost_maps(stages["features"], model.embed_vocabulary(vocabulary)), (16, 32), strict=True
    ):
        close(cost[0], f"cost{stride}")
    close(result.class_scores, "scores")
    assert np.array_equal(result.kept, reference["indices"])
    close(stages["img_guidance"].permute(2, 0, 1)[:, ::4, ::4], "img_guidance")
    close(stages["text_guidance"], "text_guidance")
    close(stages["fused_cost"].transpose(0, 1)[:, :, ::5, ::5], "fused_cost")
    close(stages["layer1_out"].permute(3, 0, 1, 2)[:, :, ::5, ::5], "layer1_out")
    assert np.abs(stages["logits"][:, ::4, ::4].detach().numpy() - reference["logits"]).max() <= 1e-3
    close(result.maps[:, ::8, ::8], "prob")
    labels = np.array(Image.open(GOLDEN / f"full_{size}_argmax.png"))
    assert (result.labels.numpy() == labels).mean() >= 0.999
