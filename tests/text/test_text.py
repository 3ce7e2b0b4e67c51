"""Vocabularies, prompts, the shortened text tower and the cache of embeddings."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from err_seg.jobs import split_names
from err_seg.modeling.clip import encode_tokens
from err_seg.text import cache, encoder
from err_seg.text.cache import TextEmbeddings
from err_seg.text.prompts import PromptStyle, VocabularyError, check_vocabulary
from err_seg.text.vocabularies import load_vocabulary, read_vocabulary, vocabulary_names
from err_seg.utils.errors import NonFiniteError
from err_seg.visualization.text import first_synonym
from tests.helpers.toy import VOCABULARY


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


def full_length(model, prompts):
    """Open_clip's own encoding of all 77 positions, normalised."""
    return F.normalize(model.encoder.clip.encode_text(model.vocabulary_encoder.tokenizer(prompts)), dim=-1)


@torch.no_grad()
def test_the_shortened_tower_gives_what_the_whole_gives(model):
    tokens = model.vocabulary_encoder.tokenize(VOCABULARY)
    assert tokens.shape[2] < 20
    prompts = [f"A photo of a {name.split(', ')[0]} in the scene" for name in VOCABULARY]
    torch.testing.assert_close(model.embed_vocabulary(VOCABULARY), full_length(model, prompts))
    padded = F.pad(tokens[:, 0], (0, 77 - tokens.shape[2]))
    torch.testing.assert_close(encode_tokens(model.encoder.clip, tokens[:, 0]), model.encoder.clip.encode_text(padded))


@torch.no_grad()
def test_templates_and_synonyms_are_averaged(model):
    style = PromptStyle(("a {}.", "the {} here"), "average")
    embeddings = model.embed_vocabulary(["cat", "sofa, long couch"], style)
    for embedding, prompts in zip(
        embeddings,
        (["a cat.", "the cat here"], ["a sofa.", "the sofa here", "a long couch.", "the long couch here"]),
        strict=True,
    ):
        torch.testing.assert_close(embedding, F.normalize(full_length(model, prompts).mean(dim=0), dim=0))


def test_blank_synonyms_are_none():
    """An average with "A photo of a  in the scene" would be off."""
    style = PromptStyle(("a {}",), "average")
    assert style.prompts("sofa, , couch, ") == ["a sofa", "a couch"]
    assert PromptStyle(("a {}",)).prompts("bed ") == ["a bed "]


def test_the_first_synonym_alone_by_default(model):
    assert torch.equal(model.embed_vocabulary(["sofa, couch"]), model.embed_vocabulary(["sofa"]))


def test_long_vocabularies_are_encoded_in_batches(model):
    names = [f"object number {i}" for i in range(150)]
    together = model.embed_vocabulary(names)
    torch.testing.assert_close(together[140:], model.embed_vocabulary(names[140:]))


@pytest.mark.parametrize(
    ("vocabulary", "complaint"),
    [
        ([], "no class names"),
        ("cat, dog", "one string"),
        (["cat", " "], "class 1 is ' '"),
        (["cat", ", sofa"], "class 1 is ', sofa'"),
        (["cat", "dog", "cat"], "'cat'"),
        (["cat", 7], "class 1 is 7"),
        (["cat", "word " * 80], "77 tokens"),
    ],
)
def test_unusable_vocabularies(model, vocabulary, complaint):
    with pytest.raises(VocabularyError, match=complaint):
        model.embed_vocabulary(vocabulary)


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("a" * 30_000, PromptStyle()),
        ("a cat" + "!" * 301, PromptStyle()),
        ("cat, " + "b" * 301, PromptStyle(synonyms="average")),
        ("cat", PromptStyle(("a photo of {} " + "c" * 301,))),
    ],
)
def test_endless_words_do_not_reach_the_tokenizer(model, name, style, monkeypatch):
    """Its time grows with the square of a word's length: 31 s for the first."""
    encoder = model.vocabulary_encoder
    with pytest.raises(VocabularyError, match="exceed the 77 tokens"):
        encoder.tokenize(["dog", "b" * 300])
    monkeypatch.setattr(encoder, "tokenizer", None)
    with pytest.raises(
        VocabularyError, match=r"the word .{42}… has 30\d+ characters, more than 300; shorten it"
    ) as told:
        encoder.tokenize(["dog", name], style)
    assert len(str(told.value)) < 150


def test_strange_but_usable_names(model):
    embeddings = model.embed_vocabulary(["🦊", "猫", "chien méchant", "bed ", "{}"])
    assert embeddings.shape == (5, 32)
    assert torch.isfinite(embeddings).all()


def test_the_benchmarks_vocabularies_are_usable():
    from err_seg.data import load_vocabulary, vocabulary_names

    for name in vocabulary_names():
        assert check_vocabulary(load_vocabulary(name))


@pytest.mark.parametrize(("templates", "complaint"), [((), "none"), (("no place",), "no place"), (("{} {}",), "{} {}")])
def test_unusable_templates(templates, complaint):
    with pytest.raises(VocabularyError, match=complaint):
        PromptStyle(templates)


@pytest.fixture
def encodings(monkeypatch):
    """Count how often a vocabulary is really encoded."""
    calls = []
    encode = cache.encode_in_batches
    monkeypatch.setattr(cache, "encode_in_batches", lambda *a: calls.append(1) or encode(*a))
    return calls


def test_encoded_once_and_anew_when_weights_change(model, encodings):
    first = model.embed_vocabulary(VOCABULARY)
    assert torch.equal(model.embed_vocabulary(VOCABULARY), first)
    assert len(encodings) == 1
    model.embed_vocabulary(VOCABULARY, PromptStyle(("a {}",)))
    model.embed_vocabulary(VOCABULARY[:3])
    assert len(encodings) == 3
    # every way in which a weight may change, also behind autograd's back
    weight = model.encoder.clip.transformer.resblocks[0].mlp.c_fc.weight
    weight.data[0, 0] += 1
    changed = model.embed_vocabulary(VOCABULARY)
    assert len(encodings) == 4
    assert not torch.equal(changed, first)


def test_image_tower_and_temperature_do_not_matter(model, encodings):
    model.embed_vocabulary(VOCABULARY)
    with torch.no_grad():
        model.encoder.clip.visual.trunk.stem[0].weight.add_(1)
        model.encoder.clip.logit_scale.add_(1)
    model.embed_vocabulary(VOCABULARY)
    assert len(encodings) == 1


def test_cache_on_disk(toy_model, encodings, tmp_path):
    model = toy_model("MODEL.TEXT.CACHE_DIR", str(tmp_path / "cache"))
    first = model.embed_vocabulary(VOCABULARY)
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path / "cache")  # as in another process
    assert torch.equal(model.embed_vocabulary(VOCABULARY), first)
    assert len(encodings) == 1

    (file,) = (tmp_path / "cache").glob("*.safetensors")
    file.write_bytes(b"damaged")
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path / "cache")
    assert torch.equal(model.embed_vocabulary(VOCABULARY), first)
    assert len(encodings) == 2

    with torch.no_grad():
        model.encoder.clip.ln_final.bias.add_(1)
    model.embed_vocabulary(VOCABULARY)
    assert len(encodings) == 3
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_unwritable_cache_is_no_obstacle(toy_model, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    model = toy_model("MODEL.TEXT.CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert model.embed_vocabulary(VOCABULARY).shape == (7, 32)
    assert "not cached on disk" in caplog.text


def test_memory_holds_what_was_used_last(model, encodings, monkeypatch):
    """Room for three vocabularies of two classes: a fourth takes the place of the one that waited longest."""
    monkeypatch.setattr(cache, "MEMORY_BYTES", 3 * model.embed_vocabulary(["a", "b"]).nbytes)
    for name in "cd":
        model.embed_vocabulary(["a", name])
    model.embed_vocabulary(["a", "b"])
    model.embed_vocabulary(["a", "e"])  # instead of "a", "c"
    assert len(encodings) == 4
    for name in "bde":
        model.embed_vocabulary(["a", name])
    assert len(encodings) == 4
    model.embed_vocabulary(["a", "c"])
    assert len(encodings) == 5
    assert len(model.vocabulary_encoder.embeddings._memory) == 3
    model.embed_vocabulary(VOCABULARY)  # more than fits is kept alone
    model.embed_vocabulary(VOCABULARY)
    assert len(encodings) == 6
    assert len(model.vocabulary_encoder.embeddings._memory) == 1


def test_threads_share_the_memory(model, encodings):
    """Each vocabulary is encoded once, and everybody gets his own."""
    vocabularies = [[f"thing {i}", f"thing {i + 1}"] for i in range(6)]
    expected = [model.embed_vocabulary(names) for names in vocabularies]
    fresh = copy.deepcopy(model)
    encodings.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fresh.embed_vocabulary, vocabularies * 10))
    assert len(encodings) == len(vocabularies)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected * 10, strict=True))


def test_copies_of_a_cache_have_its_folder_and_their_own_memory(tmp_path, model):
    cache = TextEmbeddings(tmp_path)
    cache(model.encoder.clip, model.vocabulary_encoder.tokenize(["a"]))
    for twin in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert twin.cache_dir == tmp_path
        assert twin._memory == {}


LONG = [f"{'very ' * (i % 4)}thing {i}" for i in range(11)]


def test_a_long_vocabulary_is_embedded_in_parts_of_about_equal_length(model, monkeypatch):
    whole, lengths = model.embed_vocabulary(LONG), []
    monkeypatch.setattr(cache, "CLASSES_IN_A_PART", 4)
    encode = cache.encode_in_batches
    monkeypatch.setattr(cache, "encode_in_batches", lambda *a: lengths.append(a[1].shape[::2]) or encode(*a))
    torch.testing.assert_close(model.embed_vocabulary(LONG), whole, rtol=0, atol=1e-6)
    assert [count for count, _ in lengths] == [4, 4, 3]
    assert sorted({length for _, length in lengths}) == [length for _, length in lengths]


def test_an_interrupted_long_vocabulary_goes_on_where_it_was(model, tmp_path, encodings, monkeypatch):
    monkeypatch.setattr(cache, "CLASSES_IN_A_PART", 4)
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)
    with monkeypatch.context() as patch:
        counting, done = cache.encode_in_batches, []

        def stopping(*arguments):
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(None)
            return counting(*arguments)

        patch.setattr(cache, "encode_in_batches", stopping)
        with pytest.raises(KeyboardInterrupt):
            model.embed_vocabulary(LONG)
    assert len(encodings) == 2
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)  # as in another process
    model.embed_vocabulary(LONG)
    assert len(encodings) == 3


def stored(folder):
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        return file, opened.get_tensor("text"), opened.metadata()


TAMPERED = {
    "permuted": lambda text: text.flip(0),
    "zeroed": torch.zeros_like,
    "not a number": lambda text: text.index_fill(0, torch.tensor([2]), torch.nan),
    "fewer rows": lambda text: text[:-1],
    "narrower": lambda text: text[:, :-1],
    "of another type": torch.Tensor.double,
}


@pytest.mark.parametrize("with_digest", [True, False])
@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_what_is_in_the_cache_is_not_believed(model, encodings, tmp_path, change, with_digest):
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)
    first = model.embed_vocabulary(VOCABULARY)
    file, text, metadata = stored(tmp_path)
    save_file({"text": change(text).contiguous()}, file, metadata if with_digest else None)
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)
    assert torch.equal(model.embed_vocabulary(VOCABULARY), first)
    assert len(encodings) == 2
    assert torch.equal(stored(tmp_path)[1], first), "and it is as it was"


def test_embeddings_of_other_words_under_this_name_are_not_believed(model, encodings, tmp_path):
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)
    first = model.embed_vocabulary(["cat", "dog"])
    file, _, _ = stored(tmp_path)
    model.embed_vocabulary(["dog", "cat"])
    (other,) = set(tmp_path.iterdir()) - {file}
    other.replace(file)
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)
    assert torch.equal(model.embed_vocabulary(["cat", "dog"]), first)
    assert len(encodings) == 3


def swap_rows(weight):
    weight[[3, 5]] = weight[[5, 3]]


def swap_columns(weight):
    weight[:, [3, 5]] = weight[:, [5, 3]]


def swap_corners(weight):
    """Permute such that the sums of all rows and of all columns stay."""
    weight[3, 4], weight[5, 6], weight[3, 6], weight[5, 4] = 1, 1, 2, 2


@pytest.mark.parametrize(
    "permute", [swap_rows, swap_columns, swap_corners, lambda weight: weight.copy_(weight.flip(0))]
)
def test_permuted_weights_are_other_weights(model, encodings, permute):
    """Their sum is the same."""
    weight = model.encoder.clip.transformer.resblocks[0].mlp.c_fc.weight.data
    weight[3, 4], weight[5, 6], weight[3, 6], weight[5, 4] = 2, 2, 1, 1
    first = model.embed_vocabulary(VOCABULARY)
    permute(weight)
    assert not torch.equal(model.embed_vocabulary(VOCABULARY), first)
    assert len(encodings) == 2


def test_the_identity_of_weights_depends_on_every_place():
    """Of any length, alignment and type, also where blocks begin."""
    whole = torch.zeros(3 * 2**17 + 7)
    for length, first in ((1, 0), (3, 0), (2**17, 1), (2**17 + 1, 3), (len(whole), 0)):
        for kind in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            clip = nn.Module()
            clip.weight = nn.Parameter(whole.to(kind)[first : first + length])
            seen = {cache.weights_checksum(clip)}
            places = sorted({0, length // 2, length - 1, *(place for place in (2**15, 2**17) if place < length)})
            for place in places:
                clip.weight.data[place] = 1
                seen.add(cache.weights_checksum(clip))
                clip.weight.data[place] = 0
            assert len(seen) == 1 + len(places)


def test_damaged_weights_give_no_embeddings(model, tmp_path):
    model.vocabulary_encoder.embeddings = TextEmbeddings(tmp_path)
    model.encoder.clip.ln_final.bias.data[0] = torch.nan
    with pytest.raises(NonFiniteError, match="text embeddings hold NaN or infinity"):
        model.embed_vocabulary(VOCABULARY)
    assert not list(tmp_path.iterdir())


ALIKE = [
    ["Cat", "cat"],
    ["a, b", "a, c"],
    ["x", "x,"],
    ["caf\u00e9", "cafe\u0301"],
    ["traffic light", "traffic  light"],
    ["sofa,couch", "sofa"],
]


@pytest.mark.parametrize("names", ALIKE)
def test_names_that_clip_cannot_tell_apart_are_named(model, names):
    with pytest.raises(VocabularyError, match="cannot tell these class names apart") as caught:
        model.predict(np.zeros((8, 8, 3), dtype=np.uint8), ["dog", *names, "grass"])
    assert f"{names[0]!r} = {names[1]!r}." in str(caught.value)


def test_averaged_synonyms_tell_names_apart_unless_all_are_the_same(model):
    average = PromptStyle(synonyms="average")
    assert len(model.embed_vocabulary(["a, b", "a, c"], average)) == 2
    with pytest.raises(VocabularyError, match="'a, b' = 'b, a'"):
        model.embed_vocabulary(["a, b", "b, a"], average)


def test_packaged_vocabularies_keep_their_classes_with_one_warning(model, caplog):
    encoder._warn_once.cache_clear()
    names = load_vocabulary("ade847")
    for vocabulary in (names, names[:400], names, read_vocabulary(["coco", "ade847"])):
        assert len(model.vocabulary_encoder.tokenize(vocabulary)) == len(vocabulary)
    whole = [record.getMessage() for record in caplog.records if "cannot tell" in record.getMessage()]
    assert len(whole) == len(set(whole)) == 2, "one of all classes, and one of the first 400, which have fewer"
    assert "'patio' = 'patio, terrace'" in whole[0]
    assert whole[0].count(" = ") == 10, "nine groups, one of three"
    for name in set(vocabulary_names()) - {"ade20k_847"}:
        caplog.clear()
        model.vocabulary_encoder.tokenize(load_vocabulary(name))
        assert "cannot tell" not in caplog.text


def test_a_comma_joins_synonyms_with_and_without_a_space(model):
    """In a list, in a file, and among classes that a semicolon separates on the command line."""
    average = PromptStyle(("a {}",), "average")
    assert average.prompts("sofa,couch") == average.prompts("sofa, couch") == ["a sofa", "a couch"]
    assert PromptStyle(("a {}",)).prompts("sofa,couch") == ["a sofa"]
    assert torch.equal(model.embed_vocabulary(["cat", "sofa,couch"]), model.embed_vocabulary(["cat", "sofa"]))
    assert split_names("cat; sofa,couch") == read_vocabulary(["cat", "sofa,couch"]) == ("cat", "sofa,couch")
    assert first_synonym("sofa,couch") == "sofa"
    with pytest.raises(VocabularyError, match=r"\['sofa,couch'\] for one class, \['sofa', 'couch'\] for several"):
        read_vocabulary("sofa,couch")


def test_prompts_of_the_packaged_vocabularies_are_as_published():
    for style in (PromptStyle(), PromptStyle(synonyms="average")):
        for name in (name for table in vocabulary_names() for name in load_vocabulary(table)):
            parts = [part for part in name.split(", ") if part.strip()]
            expected = parts[:1] if style.synonyms == "first" else parts
            assert style.prompts(name) == [f"A photo of a {part} in the scene" for part in expected]
