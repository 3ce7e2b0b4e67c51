"""Classes by example, on the trained network of the package."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import err_seg
from err_seg import ArgumentError, Exemplar, VocabularyError
from err_seg.commands import predict
from err_seg.data import load_vocabulary
from err_seg.export import save_vocabulary as save_embeddings
from err_seg.jobs import parse_label_set
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.prediction.examples import NAME_WEIGHTS, chosen_weight, read_examples
from err_seg.text.prompts import Vocabulary, carrying
from err_seg.text.vocabularies import read_vocabulary
from err_seg.utils.images import save_image

RING = VOCABULARY.index("red ring")
OTHERS = tuple(name for name in VOCABULARY if name != "red ring")
SHOWING = [s for s in (MiniScenes("val", length=120, seed=1)[i] for i in range(120)) if (s.label == RING).sum() > 300]
EXAMPLES = [Exemplar(sample.image, sample.label == RING) for sample in SHOWING[:4]]
SCENE = SHOWING[5]


@pytest.fixture(scope="module")
def mini():
    return err_seg.load("mini")


@pytest.fixture(scope="module")
def zorbs(mini):
    return mini.vocabulary_with_examples(OTHERS, {"zorb": EXAMPLES}, use_names=False)


def iou(labels, index, sample=SCENE):
    found, truth = labels == index, sample.label == RING
    return (found & truth).sum() / (found | truth).sum()


def test_a_class_without_a_word_is_found(mini, zorbs):
    assert zorbs == (*OTHERS, "zorb")
    result = mini.predict(SCENE.image, zorbs)
    assert iou(result.labels.numpy(), zorbs.index("zorb")) > 0.7
    tiled = mini.predict(SCENE.image, zorbs, tile=96)
    assert iou(tiled.labels.numpy(), zorbs.index("zorb")) > 0.5


def test_rows_of_other_classes_stay_equal_bit_for_bit(mini, zorbs):
    text = mini.embed_vocabulary(zorbs)
    assert torch.equal(text[:-1], mini.embed_vocabulary(OTHERS))
    assert torch.equal(text[-1], zorbs.rows["zorb"].vector)
    turned = carrying(("zorb", *OTHERS), zorbs)
    assert torch.equal(mini.embed_vocabulary(turned)[0], text[-1])
    assert torch.equal(mini.embed_vocabulary(turned)[1:], text[:-1])


def test_better_than_the_plain_mean(mini, zorbs):
    parts = []
    with torch.no_grad(), mini.evaluating():
        for exemplar in EXAMPLES:
            image, mask = exemplar.read("one")
            maps = F.normalize(mini.encoder(mini.preprocess([image])).embeddings[0][0], dim=0)
            share = F.interpolate(mask[None, None].float(), maps.shape[-2:], mode="area")[0, 0]
            parts.append((maps * share).sum(dim=(1, 2)) / share.sum())
    mean = F.normalize(torch.stack(parts).sum(dim=0), dim=0)
    row = zorbs.rows["zorb"]
    plain = Vocabulary(zorbs, rows={"zorb": row._replace(vector=mean)})
    places = zorbs.index("zorb")
    inside = union = plain_inside = plain_union = 0
    for sample in SHOWING[4:6]:
        truth = sample.label == RING
        found, by_mean = (mini.predict(sample.image, names).labels.numpy() == places for names in (zorbs, plain))
        inside, union = inside + (found & truth).sum(), union + (found | truth).sum()
        plain_inside, plain_union = plain_inside + (by_mean & truth).sum(), plain_union + (by_mean | truth).sum()
    assert inside / union > plain_inside / plain_union + 0.02


def test_deterministic(mini, zorbs):
    again = mini.vocabulary_with_examples(OTHERS, {"zorb": EXAMPLES}, use_names=False)
    assert torch.equal(again.rows["zorb"].vector, zorbs.rows["zorb"].vector)
    assert again.rows["zorb"].origin == zorbs.rows["zorb"].origin
    fewer = mini.vocabulary_with_examples(OTHERS, {"zorb": EXAMPLES[:3]}, use_names=False)
    assert fewer.rows["zorb"].origin != zorbs.rows["zorb"].origin
    with torch.inference_mode():
        assert mini.vocabulary_with_examples(OTHERS, {"zorb": EXAMPLES}, use_names=False).rows.keys() == {"zorb"}


def test_a_contrast_name_that_means_the_same_does_not_compete(mini):
    alone = mini.vocabulary_with_examples((), {"zorb": EXAMPLES}, use_names=False)
    result = mini.predict(SCENE.image, alone, contrast="common")
    assert result.contrast.left_out == {"red ring": "zorb"}
    assert iou(result.labels.numpy(), 0) > 0.7


def test_a_good_word_weighs_more_than_a_poor_one(mini):
    right = mini.vocabulary_with_examples(VOCABULARY, {"red ring": EXAMPLES})
    text = mini.embed_vocabulary(VOCABULARY)
    wrong = mini.vocabulary_with_examples(["green wall", *OTHERS], {"green wall": EXAMPLES})
    assert F.cosine_similarity(right.rows["red ring"].vector, text[RING], dim=0) > 0.9
    poor = mini.embed_vocabulary(["green wall"])[0]
    assert F.cosine_similarity(wrong.rows["green wall"].vector, poor, dim=0) < 0.5


def test_the_largest_weight_that_is_about_as_good_as_the_best_is_chosen():
    losses = torch.ones(len(NAME_WEIGHTS), 4) + torch.tensor([0.3, 0.0, 0.01, 0.02, 0.5, 0.9])[:, None]
    losses[3] += torch.tensor([-0.1, 0.1, 0.1, -0.1])
    assert chosen_weight(losses) == NAME_WEIGHTS[3]
    losses[3] += 0.2
    assert chosen_weight(losses) == NAME_WEIGHTS[2]


def test_what_rebuilds_a_vocabulary_keeps_its_rows(mini, zorbs):
    few = carrying(("zorb", "red star"), zorbs)
    label_set = parse_label_set(few, ["gray brick wall"])
    assert label_set.vocabulary.rows.keys() == {"zorb"}
    assert label_set.classes.colors.keys() == {"zorb", "red star"}
    assert pickle.loads(pickle.dumps(label_set)).vocabulary.rows["zorb"].origin == zorbs.rows["zorb"].origin
    assert read_vocabulary(few).rows.keys() == {"zorb"}
    assert mini.predict(SCENE.image, few, contrast="none").vocabulary == few


def test_a_saved_vocabulary_is_read_wherever_a_file_is(mini, zorbs, tmp_path):
    file = tmp_path / "zorbs.safetensors"
    err_seg.save_vocabulary(Vocabulary(zorbs, {"zorb": (1, 2, 3)}), file)
    found = load_vocabulary(file)
    assert found == zorbs
    assert found.colors == {"zorb": (1, 2, 3)}
    assert torch.equal(mini.embed_vocabulary(found), mini.embed_vocabulary(zorbs))
    assert torch.equal(mini.predict(SCENE.image, file).labels, mini.predict(SCENE.image, zorbs).labels)
    assert read_vocabulary(["a word", file]).rows.keys() == {"zorb"}
    save_embeddings(mini, zorbs, tmp_path / "zorbs.npz")
    stored = np.load(tmp_path / "zorbs.npz")
    assert stored["names"][-1] == "zorb"
    assert np.array_equal(stored["text"], mini.embed_vocabulary(zorbs).numpy())


def test_other_weights_are_refused(zorbs):
    other = err_seg.load("mini")
    with torch.no_grad():
        next(other.head.parameters()).add_(1e-3)
    with pytest.raises(VocabularyError, match="'zorb' were read by a model with other weights"):
        other.predict(SCENE.image, zorbs)


def test_the_digest_follows_the_weights(mini):
    other = err_seg.load("mini")
    before = other.digest
    assert before == mini.digest == other.digest
    with torch.no_grad():
        next(other.head.parameters()).mul_(2)
    assert other.digest != before


def test_damaged_and_foreign_files_are_refused(zorbs, tmp_path):
    file = tmp_path / "zorbs.safetensors"
    with pytest.raises(VocabularyError, match="no vocabulary file at"):
        load_vocabulary(file)
    err_seg.save_vocabulary(zorbs, file)
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(VocabularyError, match="damaged or no vocabulary"):
        load_vocabulary(file)
    file.write_bytes(content.replace(b"err_seg vocabulary 1", b"err_seg vocabulary 9"))
    with pytest.raises(VocabularyError, match="is no vocabulary of"):
        load_vocabulary(file)
    file.write_bytes(content.replace(b'\\"names\\"', b'\\"nomes\\"'))
    with pytest.raises(VocabularyError, match="damaged or no vocabulary"):
        load_vocabulary(file)
    file.write_bytes(content)
    vectors = load_file(file)["rows"]
    for wrong in (vectors * 2, vectors * float("nan"), vectors[:, :1], vectors.double()):
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata()
        save_file({"rows": wrong.contiguous()}, tmp_path / "wrong.safetensors", metadata=metadata)
        with pytest.raises(VocabularyError, match="damaged or no vocabulary"):
            load_vocabulary(tmp_path / "wrong.safetensors")
    with pytest.raises(VocabularyError, match="a vocabulary with examples"):
        err_seg.save_vocabulary(Vocabulary(OTHERS), file)
    with pytest.raises(VocabularyError, match="expected a path that ends in"):
        err_seg.save_vocabulary(zorbs, tmp_path / "zorbs.txt")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (SCENE.label == RING, None),
        ((SCENE.label == RING)[:-1], "of the image's size"),
        ((SCENE.label == RING).astype(np.uint8), "truth values"),
        (np.zeros_like(SCENE.label, dtype=bool), "is empty"),
    ],
)
def test_masks_are_checked(mini, mask, message):
    one = {"zorb": [Exemplar(SCENE.image, mask)]}
    if message is None:
        assert mini.vocabulary_with_examples(OTHERS, one, use_names=False)[-1] == "zorb"
        return
    with pytest.raises(ArgumentError, match=rf"the mask of example 0 of 'zorb'.*{message}"):
        mini.vocabulary_with_examples(OTHERS, one, use_names=False)


def test_names_that_the_model_cannot_read_must_be_labels(mini):
    with pytest.raises(VocabularyError, match="zorb"):
        mini.vocabulary_with_examples(OTHERS, {"zorb": EXAMPLES})
    with pytest.raises(ArgumentError, match="'zorb': no examples"):
        mini.vocabulary_with_examples(OTHERS, {"zorb": []}, use_names=False)


@pytest.fixture
def folder(tmp_path):
    for number, exemplar in enumerate(EXAMPLES[:2]):
        save_image(Image.fromarray(exemplar.image), tmp_path / f"shown/zorb/{number}.png")
        save_image(Image.fromarray(exemplar.mask.astype(np.uint8)), tmp_path / f"shown/zorb/{number}_mask.png")
    save_image(Image.fromarray(SCENE.image), tmp_path / "scene.png")
    return tmp_path / "shown"


def test_a_folder_is_the_same_as_its_examples(mini, folder):
    given = mini.vocabulary_with_examples(OTHERS, {"zorb": EXAMPLES[:2]}, use_names=False)
    read = mini.vocabulary_with_examples(OTHERS, folder, use_names=False)
    assert torch.equal(given.rows["zorb"].vector, read.rows["zorb"].vector)
    assert read == given
    with pytest.raises(VocabularyError, match="'zorb': classes by example have no words"):
        mini.vocabulary_encoder.tokenize(read)


def test_a_folder_must_hold_pairs(folder):
    (folder / "zorb/1_mask.png").unlink()
    with pytest.raises(ArgumentError, match=r"without a partner: .*zorb/1\.png"):
        read_examples(folder)
    shutil.rmtree(folder / "zorb")
    with pytest.raises(ArgumentError, match="a folder for each class"):
        err_seg.load("mini").vocabulary_with_examples(OTHERS, folder)


def test_the_command_takes_examples_and_refuses_others_for_the_same_job(folder, tmp_path, capsys):
    command = [str(tmp_path / "scene.png"), "--classes", ", ".join(OTHERS), "--examples", str(folder)]
    command += ["--label-only", "--model", "mini", "--output", str(tmp_path / "out"), "--format", "labels"]
    assert predict.main(command) == 0
    labels = np.array(Image.open(tmp_path / "out/scene_labels.png"))
    assert iou(labels, 59) > 0.6
    assert predict.main(command) == 0
    assert "1 were done before" in capsys.readouterr().out
    mask = SHOWING[1].label == RING
    mask[: mask.shape[0] // 2] = False
    mask[-1, -1] = True
    save_image(Image.fromarray(mask.astype(np.uint8)), folder / "zorb/1_mask.png")
    assert predict.main(command) == 3
    assert "examples" in capsys.readouterr().err
