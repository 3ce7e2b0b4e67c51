"""Learning from a teacher: what it gives, what it changes, and how a run goes on with it."""

import pytest
import torch
from torch.nn import functional as F

import err_seg
from err_seg.config import ConfigError
from err_seg.data import Batch, get_dataset
from err_seg.engine.step import Teacher, training_loss, vocabulary_input
from err_seg.modeling.crm import NOT_KEPT
from err_seg.modeling.loss import count_pixels, distillation_loss
from tests.helpers.toy import TESTS, VOCABULARY, liven
from tests.helpers.training import assert_resumes_exactly, assert_same_weights, metrics, run, training_state

FASTVIT = str(TESTS / "helpers/toy_fastvit.json")
OTHER = ("MODEL.CLIP.NAME", FASTVIT, "INPUT.SIZE", 96, "MODEL.PIXEL_MEAN", [0.0, 0.0, 0.0])
STILL = ("MODEL.ESCF.DROP_PATH", 0.0)
CPU = torch.device("cpu")


@pytest.fixture
def teach(toy_cfg, tmp_path):
    """Return a function from overrides to a trained network's file."""

    def write(*overrides, name="teacher", seed=1):
        cfg = toy_cfg(*overrides, "SEED", seed)
        model = err_seg.build_model(cfg)
        liven(model)
        err_seg.save_weights(model, tmp_path / f"{name}.safetensors", {"config": cfg.dump()})
        return str(tmp_path / f"{name}.safetensors")

    return write


def batch_of(num_classes, size=64, count=2):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, num_classes, (count, size // 8, size // 8), generator=generator)
    return Batch(images, labels.repeat_interleave(8, 1).repeat_interleave(8, 2), [""] * count)


@pytest.mark.parametrize("other", [(), OTHER], ids=["alike", "FastViT, another size, other statistics"])
def test_a_teacher_segments_the_given_classes_by_its_own_ways(other, teach):
    teacher = Teacher(teach(*other), VOCABULARY, CPU)
    images, kept = batch_of(len(VOCABULARY)).images, torch.tensor([[0, 2, 5], [1, 2, 3]])
    maps = teacher(images, kept)
    model = teacher.model
    assert not model.training
    expected = model.head.segment(model.encoder(model.preprocess(images)), model.embed_vocabulary(VOCABULARY), kept)
    assert maps.shape == (2, 3, model.size // 4, model.size // 4)
    assert maps.requires_grad is False
    torch.testing.assert_close(maps, expected.sigmoid())


def test_what_fills_up_a_row_changes_nothing(teach):
    teacher = Teacher(teach(), VOCABULARY, CPU)
    images = batch_of(len(VOCABULARY)).images
    maps = teacher(images, torch.tensor([[0, 2, 5], [1, 3, NOT_KEPT]]), has_padding=True)
    torch.testing.assert_close(maps[1:, :2], teacher(images[1:], torch.tensor([[1, 3]])))
    assert maps[1, 2].count_nonzero() == 0


@pytest.mark.parametrize("score", [0.0, 0.1])
@pytest.mark.parametrize("ignored_are_negatives", [True, False])
def test_gradients_flow_to_the_student_alone(score, ignored_are_negatives, teach, toy_cfg, toy_model, toy_data):
    own = ("MODEL.CRM.MIN_SCORE_TRAIN", score, "MODEL.LOSS.IGNORED_ARE_NEGATIVES", ignored_are_negatives, *STILL)
    teacher, student, spec = Teacher(teach(*OTHER), VOCABULARY, CPU), toy_model(*own).train(), get_dataset("toy_train")
    before = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
    text, gradients, losses = vocabulary_input(student, spec.vocabulary), [], []
    for weight in (0.0, 1.0, 2.0):
        cfg = toy_cfg(*own, *(("MODEL.DISTILL.WEIGHT", weight) if weight else ()))
        student.zero_grad()
        taught = teacher if weight else None
        terms = training_loss(student, student, batch_of(len(VOCABULARY)), text, spec, cfg, teacher=taught)
        loss = sum(terms.values())
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    assert losses[1] > losses[0]
    torch.testing.assert_close(losses[2] - losses[0], 2 * (losses[1] - losses[0]))
    torch.testing.assert_close(gradients[2] - gradients[0], 2 * (gradients[1] - gradients[0]), rtol=1e-3, atol=1e-6)
    assert not torch.equal(gradients[1], gradients[0])
    assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.model.state_dict().items())


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(teach, toy_cfg):
    file = teach(*STILL)
    teacher, student = Teacher(file, VOCABULARY, CPU), err_seg.load(file).train()
    batch, text = batch_of(len(VOCABULARY)), vocabulary_input(student, VOCABULARY)
    prediction = student(student.preprocess(batch.images, 64), text, labels=batch.labels)
    targets = teacher(batch.images, prediction.kept)
    loss = distillation_loss(prediction.logits, targets, prediction.kept, batch.labels, len(VOCABULARY))
    loss.backward()
    assert loss.abs() < 1e-6
    largest = max(p.grad.abs().max() for p in student.parameters() if p.grad is not None)
    assert largest < 1e-6


@pytest.mark.parametrize("ignored_are_negatives", [True, False])
def test_the_loss_is_the_divergence_over_the_pixels_that_count(ignored_are_negatives):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    targets = torch.rand(2, 3, 4, 4, generator=generator)
    targets[0, 0] = 0
    targets[0, 1] = 1
    kept, num_classes = torch.tensor([[0, 2, 4], [1, 2, 3]]), 6
    labels = torch.randint(0, num_classes, (2, 4, 4), generator=generator).index_fill_(1, torch.tensor([3]), 255)
    counts = torch.ones(2, 4, 4, dtype=torch.bool)
    if not ignored_are_negatives:
        counts = (labels[:, None] == kept[:, :, None, None]).any(dim=1)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    cross = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    entropy = F.binary_cross_entropy(targets, targets, reduction="none")
    expected = ((cross - entropy) * counts[:, None]).sum() / (num_classes * counts.sum())
    options = {"ignored_are_negatives": ignored_are_negatives}
    loss = distillation_loss(logits, targets, kept, labels, num_classes, **options)
    torch.testing.assert_close(loss, expected)
    assert distillation_loss(logits, logits.sigmoid(), kept, labels, num_classes, **options) < 1e-6

    if not ignored_are_negatives:  # parts of a batch average to it, whatever they hold
        options["num_pixels"] = (labels[:, None] == kept[:, :, None, None]).sum() / 2
    parts = [
        distillation_loss(*(tensor[i : i + 1] for tensor in (logits, targets, kept, labels)), num_classes, **options)
        for i in range(2)
    ]
    torch.testing.assert_close(sum(parts) / 2, expected)
    nothing = torch.full_like(labels, 255)
    assert count_pixels(nothing, num_classes, 3) == 0
    assert distillation_loss(logits, targets, kept, nothing, num_classes) > 0
    assert distillation_loss(logits, targets, kept, nothing, num_classes, ignored_are_negatives=False) == 0


def test_a_run_with_a_teacher_goes_on_bit_by_bit(run_cfg, tmp_path, monkeypatch, teach):
    options = ("MODEL.DISTILL.WEIGHTS", teach(*OTHER), "MODEL.ESCF.DROP_PATH", 0.5, "SOLVER.ACCUMULATION_STEPS", 2)
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *options, stops=(3,))
    alone = metrics_of(run_cfg, tmp_path / "alone", *options[2:])
    assert metrics(tmp_path / "straight", "total_loss")[0] > alone[0]


def metrics_of(run_cfg, folder, *options):
    run(run_cfg(*options, "OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", 1))
    return metrics(folder, "total_loss")


def test_a_teacher_that_changed_since_the_checkpoint_is_named(run_cfg, tmp_path, teach, caplog):
    options = ("MODEL.DISTILL.WEIGHTS", teach())
    run(run_cfg("SOLVER.MAX_ITER", 2, *options))
    digest = training_state(tmp_path / "out", 2)["teacher"]
    assert len(digest) == 32
    run(run_cfg("SOLVER.MAX_ITER", 3, *options), resume=True)
    assert "teacher's weights changed" not in caplog.text
    teach(seed=2)
    run(run_cfg("SOLVER.MAX_ITER", 4, *options), resume=True)
    assert f"the teacher's weights changed since the checkpoint: MODEL.DISTILL.WEIGHTS {options[1]}" in caplog.text
    assert training_state(tmp_path / "out", 4)["teacher"] not in ("", digest)
    run(run_cfg("SOLVER.MAX_ITER", 5), resume=True)
    assert f"MODEL.DISTILL.WEIGHTS: '{options[1]}' → ''" in caplog.text
    assert training_state(tmp_path / "out", 5)["teacher"] == ""


def test_weights_of_a_student_load_without_their_teacher(run_cfg, tmp_path, teach):
    file = teach()
    run(run_cfg("SOLVER.MAX_ITER", 1, "MODEL.DISTILL.WEIGHTS", file))
    (tmp_path / "teacher.safetensors").unlink()
    model = err_seg.load(tmp_path / "out/model_final.safetensors")
    assert not any("DISTILL" in key for key in model.settings)
    err_seg.save_weights(model, tmp_path / "again.safetensors")
    assert_same_weights(tmp_path / "again.safetensors", tmp_path / "out/model_final.safetensors")


@pytest.mark.parametrize(
    ("teacher", "complaint"),
    [
        ("nobody.safetensors", "no model 'nobody.safetensors'"),
        ("mini", "does not support the word"),  # of the toy data set's names
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_by_its_key(teacher, complaint, run_cfg):
    with pytest.raises(ConfigError, match=rf"^MODEL\.DISTILL\.WEIGHTS: .*{complaint}"):
        run(run_cfg("MODEL.DISTILL.WEIGHTS", teacher))


def test_a_single_pixel_that_counts():
    logits, targets = torch.tensor([1.5, -0.5]).view(1, 2, 1, 1), torch.tensor([0.25, 1.0]).view(1, 2, 1, 1)
    kept, wide = torch.tensor([[0, 2]]), (1, 2, 2, 2)
    labels = torch.tensor([[[0, 255], [255, 255]]])
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    expected = expected - F.binary_cross_entropy(targets, targets, reduction="sum")
    arguments = (logits.expand(wide), targets, kept, labels, 4)
    torch.testing.assert_close(distillation_loss(*arguments, ignored_are_negatives=False), expected / 4)


def test_the_number_of_pixels_is_that_of_the_labels():
    """What a part is divided by is counted in pixels of the labels, of which there are more than of the logits."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = (torch.rand(2, 2, 3, 5, generator=generator) for _ in range(2))
    kept, labels = torch.tensor([[0, 1], [0, 1]]), torch.zeros(2, 6, 20, dtype=torch.int64)
    own = distillation_loss(logits, targets, kept, labels, 3, ignored_are_negatives=False)
    given = distillation_loss(
        logits, targets, kept, labels, 3, ignored_are_negatives=False, num_pixels=torch.tensor(2 * labels[0].numel())
    )
    torch.testing.assert_close(given, own)


def test_labels_are_read_at_the_centres_of_the_logits_pixels():
    """A label map three times as large as the logits: only the middle of each 3×3 block says what counts."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(1, 2, 4, 5, generator=generator), torch.rand(1, 2, 4, 5, generator=generator)
    kept = torch.tensor([[0, 2]])
    labels = torch.full((1, 12, 15), 255)
    labels[:, 1::3, 1::3] = torch.tensor([0, 2, 1, 255, 2])  # class 1 is not kept
    loss = distillation_loss(logits, targets, kept, labels, 3, ignored_are_negatives=False)
    divergence = distillation_loss(
        *(maps[..., [0, 1, 4]] for maps in (logits, targets)), kept, torch.zeros(1, 4, 3, dtype=torch.int64), 3
    )
    torch.testing.assert_close(loss, divergence)
