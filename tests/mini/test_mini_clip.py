"""The tiny CLIP: its words, its packaged weights, and that contrastive training teaches."""

import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import err_seg
from err_seg.commands import main
from err_seg.lab.mini import pretraining
from err_seg.lab.mini.pretraining import PretrainingConfig, contrastive_loss, zero_shot_accuracy
from err_seg.mini import clip as mini
from err_seg.mini.clip import WordTokenizer
from err_seg.mini.crops import MiniCrops
from err_seg.mini.vocabulary import PROMPTS, VOCABULARY, words
from err_seg.modeling.clip import CLIPConfigError, build_clip, build_tokenizer, load_clip_weights
from err_seg.modeling.encoder import Features
from err_seg.text.encoder import VocabularyEncoder
from err_seg.text.prompts import VocabularyError

MEAN, STD = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1), torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def test_every_caption_fits_and_differs():
    captions = [prompt.format(name) for prompt in PROMPTS for name in VOCABULARY]
    tokens = build_tokenizer("mini")(captions)
    assert tokens.shape == (len(captions), mini.CONTEXT_LENGTH)
    assert len(tokens.unique(dim=0)) == len(captions)
    assert (tokens.max(dim=1).values == mini.tokenizer().end).all()  # nothing was cut
    assert tokens.max() == build_clip("mini").token_embedding.num_embeddings - 1


def test_case_and_punctuation_do_not_count():
    tokenize = WordTokenizer(("a", "red", "star"), 8)
    assert tokenize("A red, STAR!").tolist() == [[1, 2, 3, 4, 5, 0, 0, 0]]
    assert tokenize(["star a a a a a a a a"], context_length=5).tolist() == [[1, 4, 2, 2, 5]]


def test_an_unknown_word_is_named_with_the_nearest_known():
    with pytest.raises(VocabularyError, match=r"'starr' of 'A photo of a red starr in the scene'; did you mean 'star'"):
        VocabularyEncoder(mini.tokenizer(), mini.CONTEXT_LENGTH).tokenize(["red starr"])
    with pytest.raises(VocabularyError, match=r"word 'zebu' of 'zebu'\. It supports a, black, .*yellow\. "):
        mini.tokenizer()(["zebu"])
    with pytest.raises(VocabularyError, match=r"does not support the word 'sofa' of 'sofa'\. It supports"):
        mini.tokenizer()(["sofa"])


def test_the_command_that_the_error_names_draws_images_with_words_that_it_knows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VocabularyError) as refused:
        err_seg.load("mini", device="cpu").predict(np.zeros((40, 60, 3), dtype=np.uint8), ["cat", "red star"])
    (command,) = re.findall(r"err-seg (mini draw .*?)\. ", str(refused.value))
    assert main(command.split()) == 0
    (images,) = tmp_path.glob("scenes/mini_world/*/images")
    predict = ["predict", str(images), "--model", "mini", "--device", "cpu", "--format", "json"]
    assert main([*predict, "--classes-file", str(images.parent / "vocabulary.json"), "--output", "known"]) == 0
    assert main([*predict, "--classes", "cat, red star", "--output", "unknown"]) == 2
    assert "does not support the word 'cat'" in capsys.readouterr().err


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(VocabularyError, match="exceed the 16 tokens"):
        VocabularyEncoder(mini.tokenizer(), mini.CONTEXT_LENGTH).tokenize(["red " * 12 + "star"])


def test_the_packaged_clip_knows_the_classes():
    clip = build_clip("mini")
    load_clip_weights(clip, "mini", "mini")
    accuracy = zero_shot_accuracy(clip.eval(), MiniCrops("test", 120, seed=5), MEAN, STD)
    assert accuracy["objects"] > 0.8
    assert accuracy["walls"] > 0.8


def test_the_packaged_clip_knows_unseen_names_among_ten_thousand():
    clip = build_clip("mini_large")
    load_clip_weights(clip, "mini_large", "mini_large")
    crops = MiniCrops("test", 200, seed=5, names=10_000)
    accuracy = zero_shot_accuracy(clip.eval(), crops, MEAN, STD, "mini_large")
    assert accuracy["seen"] > 0.05
    assert accuracy["unseen"] > 0.05, "chance is one in 10,000"
    assert mini.CLIPS["mini_large"].weights.stat().st_size < 8e6


def test_the_packaged_clip_says_how_it_was_made():
    weights = mini.CLIPS["mini"].weights
    with safe_open(weights, "pt") as file:
        facts = file.metadata()
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    assert "tools/mini_world.py" in facts["command"]
    assert "seed=" in facts["pretraining"]
    assert weights.stat().st_size < 4e6


@pytest.mark.parametrize(
    "weights", sorted(mini.ERR_SEG_WEIGHTS.parent.glob("*.safetensors")), ids=lambda file: file.stem
)
def test_no_packaged_file_names_a_folder_of_the_machine_it_was_made_on(weights):
    with safe_open(weights, "pt") as file:
        facts = file.metadata()
    assert not [word for text in facts.values() for word in re.split(r"[\s\"']+", text) if word.startswith(("/", "~"))]


def test_an_unknown_tag_of_the_tiny_clip_is_refused():
    with pytest.raises(CLIPConfigError, match=r"'laion' is no file and no tag of mini; .*a tag: mini"):
        load_clip_weights(build_clip("mini"), "mini", "laion")


def test_contrastive_training_lowers_the_loss(monkeypatch):
    losses = []

    def recorded(*arguments):
        losses.append(contrastive_loss(*arguments))
        return losses[-1]

    monkeypatch.setattr(pretraining, "contrastive_loss", recorded)
    config = PretrainingConfig(steps=12, crops=60, crop_sides=(32,), crop_batch=60, scenes=8, scene_share=0.0, warmup=2)
    pretraining.pretrain("mini", config, MEAN, STD)
    assert losses[-1] < 0.8 * losses[0]


class Dense(torch.nn.Module):
    """Stands in for the encoder: images are the maps of their pixels' embeddings."""

    def __init__(self):
        super().__init__()
        self.clip = Fixed()

    def forward(self, images):
        return Features((images,), (), ())


class Fixed(torch.nn.Module):
    """Stands in for CLIP: texts are embeddings."""

    logit_scale = torch.tensor(1.0)
    encode_text = staticmethod(lambda text: text)


def test_the_loss_asks_of_every_pixel_one_of_the_captions():
    text = torch.eye(3)
    both = torch.tensor([[0.5, 0.5, 0.0]])
    told_apart = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).T.reshape(1, 3, 1, 2)  # one pixel a caption
    blurred = torch.tensor([[1.0, 1.0, 0], [1.0, 1.0, 0]]).T.reshape(1, 3, 1, 2)  # each pixel half of each
    one_left_out = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]).T.reshape(1, 3, 1, 2)
    losses = [contrastive_loss(Dense(), image, both, text) for image in (told_apart, blurred, one_left_out)]
    assert losses[0] < losses[1] < losses[2]


def test_the_loss_is_that_of_clip_for_images_of_one_pixel():
    images = torch.nn.functional.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    text = torch.eye(5)[:3]
    logits = torch.e * images @ text.T
    labels = torch.arange(3)
    expected = torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
    assert torch.isclose(contrastive_loss(Dense(), images[..., None, None], torch.eye(3), text), expected / 2)


def test_words_of_the_tokenizer_are_those_of_the_world():
    assert list(mini.tokenizer().ids) == list(words())


def test_a_torch_without_muon_is_reported(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"needs torch 2\.9 or newer .* this is \d"):
        pretraining.build_optimizers(build_clip("mini"), PretrainingConfig())
