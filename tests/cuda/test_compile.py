"""torch.compile: the network is one graph, and how often it is compiled anew is known."""

import pytest
import torch

from err_seg.modeling.loss import segmentation_loss
from tests.helpers.toy import TOY

TOY_VIT = ["MODEL.CLIP.NAME", TOY[3].replace("toy_clip", "toy_vit"), "MODEL.HSM.ENABLED", False]
TOY_VIT += ["MODEL.GUD.GUIDANCE_DIMS", [0, 0, 0]]


class Compiler:
    """A backend that compiles nothing, and counts."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield Compiler()
    torch.compiler.reset()


@pytest.fixture(params=["convnext", pytest.param("vit", marks=pytest.mark.slow)])
def model(request, toy_model):
    return toy_model("MODEL.ESCF.NUM_LAYERS", 1, *(TOY_VIT if request.param == "vit" else ()))


def unit_vectors(count, model):
    return torch.nn.functional.normalize(torch.randn(count, model.encoder.embedding_dim), dim=1)


def test_evaluation_is_one_graph_for_images_and_vocabularies_of_all_sizes(model, compiler):
    model.eval()
    compiled = torch.compile(model, backend=compiler, fullgraph=True)
    counts = []
    with torch.no_grad():
        for size, num_classes, num_kept in (
            *((40, 7, 4), (90, 7, 4)),  # images: no more, since all are brought to S×S
            *((40, 9, 4), (64, 847, 4)),  # T: once more, then for any
            *((40, 31, 6), (40, 847, 9)),  # K: likewise
        ):
            pixels = model.preprocess([torch.randint(0, 256, (3, size, size + 10))])
            text = unit_vectors(num_classes, model)
            out, expected = compiled(pixels, text, num_kept), model(pixels, text, num_kept)
            assert torch.equal(out.kept, expected.kept)
            torch.testing.assert_close(out.logits, expected.logits)
            counts.append(compiler.graphs)
    assert counts == [1, 1, 2, 2, 3, 3]


def test_training_is_one_graph(model, compiler):
    model.train()
    compiled = torch.compile(model, backend=compiler, fullgraph=True)
    for _ in range(2):
        labels = torch.randint(0, 8, (2, 64, 64))
        out = compiled(torch.randn(2, 3, 64, 64), torch.randint(1, 50, (7, 1, 9)), labels=labels)
        segmentation_loss(out.logits, out.kept, labels, 7).backward()
    assert compiler.graphs == 1


def test_loss_is_one_graph(compiler):
    loss = torch.compile(segmentation_loss, backend=compiler, fullgraph=True)
    counts = []
    for size in (32, 32, 64, 96):
        logits, labels = torch.randn(2, 4, 16, 16), torch.randint(-1, 7, (2, size, size))
        kept = torch.arange(4).expand(2, -1)
        torch.testing.assert_close(loss(logits, kept, labels, 7), segmentation_loss(logits, kept, labels, 7))
        counts.append(compiler.graphs)
    assert counts == [1, 1, 2, 2]
