"""ERR-Seg through detectron2's own front doors: build_model, checkpointer, DefaultPredictor, Visualizer."""

import numpy as np
import pytest
import torch
from torch import nn

import err_seg
from err_seg.config import ConfigError
from err_seg.data import get_dataset
from err_seg.models.checkpoint import CheckpointError, load_weights, save_weights
from tests.helpers.released import released_state
from tests.helpers.toy import REPOSITORY, TOY, VOCABULARY

pytest.importorskip("err_seg.d2", exc_type=ImportError)  # the reason names what is lacking
pytestmark = pytest.mark.d2

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_backbone, build_model, build_sem_seg_head
from detectron2.utils.visualizer import Visualizer

from err_seg.d2 import CompactSemSeg, add_err_seg_config, from_detectron2, to_detectron2
from err_seg.engine.launch import join_processes, launch
from err_seg.utils.processes import process_share

SMALL = (*TOY, "DATASETS.TEST", ["pascal_voc_20_val"])


@pytest.fixture
def cfg():
    return to_detectron2(err_seg.get_cfg(None, SMALL))


@pytest.fixture
def image():
    return torch.randint(0, 256, (3, 50, 70), generator=torch.Generator().manual_seed(0)).byte()


def same_weights(model, other):
    first, second = (getattr(m, "network", m).state_dict() for m in (model, other))
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_model_of_a_configuration_is_the_plain_one(cfg, image, toy_cfg):
    model, plain = build_model(cfg).eval(), err_seg.build_model(err_seg.get_cfg(None, SMALL))
    assert same_weights(model, plain)
    trained = {name.removeprefix("network.") for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in plain.named_parameters() if p.requires_grad}
    pixels = image.permute(1, 2, 0).numpy()
    with torch.no_grad():
        found = model([{"image": image, "vocabulary": VOCABULARY, "num_kept": 3}])[0]
    expected = plain.predict([pixels], VOCABULARY, num_kept=3)[0]
    assert torch.equal(found["segmentation"].maps, expected.maps)
    assert torch.equal(found["sem_seg"].argmax(dim=0), expected.labels)
    assert torch.equal(model.network.predict([pixels], VOCABULARY, num_kept=3)[0].labels, expected.labels)


def test_parts_run_by_themselves(cfg):
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model = build_model(cfg).eval()
    text = model.network.embed_vocabulary(VOCABULARY)
    with torch.no_grad():
        expected = model.network(pixels, text, 3)
        features = model.backbone(pixels)
        found = model.sem_seg_head(features, text, 3)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.kept, expected.kept)
    for name, shape in model.backbone.output_shape().items():
        assert features[name].shape[1:] == (shape.channels, 64 // shape.stride, 64 // shape.stride)
    assert set(features) == {"f1", "f2", "f3", "f4", "e16", "e32"}
    head = build_sem_seg_head(cfg, build_backbone(cfg).output_shape())
    assert head.state_dict().keys() == {n for n in model.network.state_dict() if not n.startswith("encoder.")}


@pytest.mark.parametrize("clip", ["toy_clip.json", "toy_vit.json"])
def test_backbone_serves_another_head(clip, cfg):
    is_vit = clip == "toy_vit.json"
    cfg.MODEL.CLIP.NAME = str(REPOSITORY / "tests/helpers" / clip)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["f4"] if is_vit else ["f1", "f2", "f3", "f4"]
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE = 16 if is_vit else 4
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 5
    if is_vit:
        cfg.MODEL.HSM.ENABLED = False
        cfg.MODEL.GUD.GUIDANCE_DIMS = [0, 0, 0]
    model = build_model(cfg)
    trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    assert trained
    assert len(trained) < len(list(model.backbone.parameters()))
    labels = torch.zeros(64, 64, dtype=torch.int64)
    losses = model([{"image": torch.zeros(3, 64, 64), "sem_seg": labels}])
    sum(losses.values()).backward()
    model.eval()
    assert model([{"image": torch.zeros(3, 64, 64)}])[0]["sem_seg"].shape == (5, 64, 64)


def test_foreign_parts_are_refused(cfg):
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["f4"]
    with pytest.raises(ConfigError, match=r"SEM_SEG_HEAD\.NAME must be ERRSegHead"):
        build_model(cfg)


CONFIGS = REPOSITORY / "configs"
FILES = sorted(
    str(path.relative_to(CONFIGS)) for path in (*CONFIGS.glob("*.yaml"), *CONFIGS.glob("mini/err_seg*.yaml"))
)


def test_parts_that_are_registered_nowhere_are_refused_by_name(cfg):
    for key, name, expected in (("BACKBONE", "NoBackbone", "CLIPBackbone"), ("SEM_SEG_HEAD", "NoHead", "ERRSegHead")):
        changed = cfg.clone()
        changed.MODEL[key].NAME = name
        with pytest.raises(
            ConfigError, match=rf"MODEL\.{key}\.NAME must be {expected} with ERRSeg; there is no {name}"
        ):
            build_model(changed)


@pytest.mark.parametrize("file", FILES)
def test_configuration_files_mean_the_same_in_detectron2s_tree(file):
    cfg = get_cfg()
    add_err_seg_config(cfg)
    cfg.merge_from_file(str(REPOSITORY / "configs" / file))
    cfg.merge_from_list(["INPUT.FLIP_PROB", "0.25", "MODEL.DEVICE", "cpu"])
    expected = err_seg.get_cfg(REPOSITORY / "configs" / file, ["INPUT.FLIP_PROB", 0.25, "MODEL.DEVICE", "cpu"])
    assert from_detectron2(cfg) == expected
    assert from_detectron2(to_detectron2(expected)) == expected


def test_mistakes_in_the_configuration_are_told(cfg):
    with pytest.raises(ConfigError, match=r"add_err_seg_config"):
        from_detectron2(get_cfg())
    cfg.MODEL.GUD.KERNEL_SIZE = 4
    with pytest.raises(ConfigError, match=r"MODEL\.GUD\.KERNEL_SIZE must be odd"):
        build_model(cfg)


@pytest.mark.parametrize("kind", ["safetensors", "plain.pth", "released.pth", "detectron2.pth"])
def test_detectron2s_checkpointer_reads_all_our_files(cfg, tmp_path, kind):
    source, target = err_seg.build_model(err_seg.get_cfg(None, (*SMALL, "SEED", 1))), build_model(cfg)
    file = str(tmp_path / f"weights.{kind}")
    if kind == "safetensors":
        save_weights(source, file)
        file = f"safetensors:{file}"
    elif kind == "plain.pth":
        torch.save(source.state_dict(), file)
    elif kind == "released.pth":
        torch.save({"model": released_state(source)}, file)
    else:
        written = build_model(to_detectron2(err_seg.get_cfg(None, (*SMALL, "SEED", 1))))
        DetectionCheckpointer(written, str(tmp_path)).save("weights.detectron2")
        plain = err_seg.build_model(err_seg.get_cfg(None, SMALL))
        load_weights(plain, file)
        assert same_weights(plain, source)
    assert not same_weights(target, source)
    DetectionCheckpointer(target).load(file)
    assert same_weights(target, source)


@pytest.mark.parametrize("broken", ["missing", "unexpected", "shape"])
def test_checkpoint_that_does_not_fit_is_an_error(cfg, tmp_path, broken):
    model = build_model(cfg)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    if broken == "missing":
        del state["network.head.gud.head.bias"]
    elif broken == "unexpected":
        state["network.head.gud.foot.bias"] = state["network.head.gud.head.bias"]
    else:
        state["network.head.gud.head.bias"] = torch.zeros(7)
    torch.save({"model": state}, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"gud\.(head|foot)\.bias"):
        DetectionCheckpointer(model).load(str(tmp_path / "broken.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("file", "words"), [("a.safetensors", "safetensors:a.safetensors"), ("a.pkl", "unpickle")])
def test_weights_that_detectron2_would_not_read_or_unpickle_are_refused(cfg, file, words):
    cfg.MODEL.WEIGHTS = file
    with pytest.raises(ConfigError, match=words):
        build_model(cfg)


def test_detectron2s_defaults_that_say_nothing_are_taken(cfg):
    cfg.SEED, cfg.DATASETS.TRAIN = -1, ()
    own = from_detectron2(cfg)
    assert (own.SEED, own.DATASETS.TRAIN) == (0, ["coco_stuff_train"])
    build_model(cfg)


def test_default_predictor_and_visualizer(cfg, tmp_path):
    source = err_seg.build_model(err_seg.get_cfg(None, (*SMALL, "SEED", 1)))
    save_weights(source, tmp_path / "weights.safetensors")
    cfg.MODEL.WEIGHTS = f"safetensors:{tmp_path / 'weights.safetensors'}"
    predictor = DefaultPredictor(cfg)
    assert same_weights(predictor.model, source)
    bgr = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    found = predictor(bgr)
    spec = get_dataset("pascal_voc_20_val")
    expected = source.predict([bgr[:, :, ::-1].copy()], spec.vocabulary, num_kept=4)[0]
    assert found["sem_seg"].shape == (20, 64, 80)
    assert torch.equal(found["sem_seg"].argmax(dim=0), expected.labels)
    metadata = MetadataCatalog.get("pascal_voc_20_val")
    assert predictor.metadata is metadata
    labels = torch.zeros(64, 80, dtype=torch.int64)
    labels[:, 40:] = 7
    drawn = Visualizer(np.full((64, 80, 3), 128, np.uint8), metadata).draw_sem_seg(labels, draw_text=False, alpha=1.0)
    image = drawn.get_image()
    assert np.abs(image[32, 10].astype(int) - metadata.stuff_colors[0]).max() <= 1
    assert np.abs(image[32, 70].astype(int) - metadata.stuff_colors[7]).max() <= 1
    with_words = Visualizer(bgr, metadata).draw_sem_seg(found["sem_seg"].argmax(dim=0))
    assert with_words.get_image().shape == (64, 80, 3)


class FlippedAndScaled(nn.Module):
    """Test-time augmentation as the wrappers of published projects do it: dense outputs are added up and divided."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batched_inputs):
        return [self._one(x) for x in batched_inputs]

    def _one(self, x):
        total, count = None, 0
        for scale in (1.0, 1.5):
            image = nn.functional.interpolate(x["image"][None].float(), scale_factor=scale)[0]
            for flip in (False, True):
                view = {**x, "image": image.flip(dims=[2]) if flip else image}
                output = self.model([view])[0].pop("sem_seg")
                output = output.flip(dims=[2]) if flip else output
                if total is None:
                    total = output
                else:
                    total += output
                count += 1
        return {"sem_seg": total / count}


def test_wrappers_for_test_time_augmentation_add_up_dense_outputs(cfg, image):
    model = build_model(cfg).eval()
    x = {"image": image, "height": 50, "width": 70}
    with torch.no_grad():
        averaged = FlippedAndScaled(model)([x])[0]["sem_seg"]
        views = []
        for scale in (1.0, 1.5):
            scaled = nn.functional.interpolate(image[None].float(), scale_factor=scale)[0]
            views.append(model([{**x, "image": scaled}])[0]["segmentation"].dense())
            views.append(model([{**x, "image": scaled.flip(2)}])[0]["segmentation"].dense().flip(2))
    assert type(averaged) is torch.Tensor
    torch.testing.assert_close(averaged, sum(views) / 4)


def test_compact_result_is_dense_to_all_but_argmax(cfg, image, monkeypatch):
    model = build_model(cfg).eval()
    with torch.no_grad():
        compact = model([{"image": image}])[0]["sem_seg"]
    dense = compact.segmentation.dense()
    uses = {
        "sum": lambda t: 1 + t * 2 - t,
        "index": lambda t: t[3:5, 10],
        "softmax": lambda t: t.softmax(dim=0),
        "function": lambda t: nn.functional.interpolate(t[None], size=(8, 8)),
        "list": lambda t: torch.stack([t, t.flip(dims=[2])]),
        "to": lambda t: t.to("cpu", torch.float64),
        "cpu": lambda t: t.detach().cpu(),
        "numpy": lambda t: torch.from_numpy(np.asarray(t.numpy())),
        "compare": lambda t: t > 0.5,
        "argmax elsewhere": lambda t: t.argmax(dim=1),
        "argmax, kept": lambda t: t.argmax(dim=0, keepdim=True),
        "iteration": lambda t: next(iter(t)),
        "into": lambda t: torch.zeros(t.shape).copy_(t),
    }
    for name, use in uses.items():
        assert torch.equal(use(compact), use(dense)), name
        assert type(use(compact)) is torch.Tensor, name
    assert torch.equal(compact.argmax(0), dense.argmax(0))

    def refuse(*_):
        raise AssertionError("a dense tensor was made")

    monkeypatch.setattr(CompactSemSeg, "dense", refuse)
    assert compact.shape == (20, 50, 70)
    assert (compact.ndim, len(compact), compact.dtype, compact.device.type) == (3, 20, torch.float32, "cpu")
    assert "20, 50, 70" in repr(compact)
    for labels in (compact.argmax(dim=0), compact.argmax(0), compact.argmax(-3), torch.argmax(compact, dim=0)):
        assert torch.equal(labels, dense.argmax(0))
    with pytest.raises(AssertionError, match="dense"):
        _ = compact + 1


def test_background_is_one_class_of_the_output(cfg, image):
    model = build_model(cfg).eval()
    spec = get_dataset("pascal_voc_20b_val")
    with torch.no_grad():
        output = model([{"image": image, "dataset_name": spec.name, "num_kept": len(spec.vocabulary)}])[0]
    sem_seg, labels = output["sem_seg"], output["segmentation"].labels
    assert sem_seg.shape == (21, 50, 70)
    assert len(spec.vocabulary) > 21
    assert (labels >= 20).any()
    assert torch.equal(sem_seg.argmax(dim=0), labels.clamp(max=20))
    assert torch.equal(sem_seg.dense().argmax(dim=0), labels.clamp(max=20))
    dense = output["segmentation"].dense()
    assert torch.equal(sem_seg[20], dense[20:].amax(dim=0))


def test_images_of_unequal_sizes_are_padded_as_detectron2_pads_them(cfg, image):
    model = build_model(cfg)
    labels = torch.zeros(50, 70, dtype=torch.int64)
    whole = image.float().clone()
    whole[:, 40:], whole[:, :, 60:] = (model.network.pixel_mean.expand(3, *size) for size in ((10, 70), (50, 10)))
    truth = labels.clone()
    truth[40:], truth[:, 60:] = 255, 255
    part = {"image": image[:, :40, :60], "sem_seg": labels[:40, :60]}
    large = {"image": image, "sem_seg": labels}
    torch.manual_seed(0)
    found = model([large, part])["loss_sem_seg"]
    torch.manual_seed(0)
    assert torch.equal(found, model([large, {"image": whole, "sem_seg": truth}])["loss_sem_seg"])


def test_batches_that_do_not_go_together_are_refused(cfg):
    model = build_model(cfg)
    small = torch.zeros(32, 32, dtype=torch.int64)
    names = ("coco_stuff_train", "pascal_voc_20_val")
    with pytest.raises(ValueError, match="one data set"):
        model([{"image": torch.zeros(3, 32, 32), "sem_seg": small, "dataset_name": name} for name in names])


def unequal_losses(argument):
    """Compute the loss of this process's share of four images of unequally many labelled pixels, and write it."""
    cfg, folder = argument
    torch.set_num_threads(1)
    join_processes(cfg)
    rank, processes = process_share()
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for number in range(4):
        labels = torch.randint(0, 20, (64, 64), generator=generator)
        labels[: 20 * number] = 255
        inputs.append({"image": torch.randint(0, 256, (3, 64, 64), generator=generator).byte(), "sem_seg": labels})
    model = build_model(to_detectron2(cfg)).train()
    loss = model(inputs[rank::processes])["loss_sem_seg"]
    (folder / f"loss-{rank}-of-{processes}").write_text(repr(loss.item()))
    return 0


def test_ignored_pixels_are_left_out_of_the_mean_over_all_processes(tmp_path):
    more = ("MODEL.LOSS.IGNORED_ARE_NEGATIVES", False, "MODEL.ESCF.DROP_PATH", 0.0)
    cfg = err_seg.get_cfg(None, [*SMALL, *more, "DATASETS.TRAIN", ["pascal_voc_20_val"]])
    assert unequal_losses((cfg, tmp_path)) == 0
    assert launch(unequal_losses, (cfg, tmp_path), processes=2) == 0
    whole, first, second = (float((tmp_path / f"loss-{name}").read_text()) for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert (first + second) / 2 == pytest.approx(whole, rel=1e-6)
