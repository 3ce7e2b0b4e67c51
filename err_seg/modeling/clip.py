"""CLIP from the released open_clip: building, loading, and the text tower."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.modeling.cpu import Linear
from err_seg.utils.device import all_finite
from err_seg.utils.files import is_safetensors
from err_seg.utils.messages import listed

# open_clip's CLIP module, which has no type annotations
OpenCLIP = Any


class CustomCLIP(NamedTuple):
    """A CLIP beside open_clip's: its description as in open_clip's ``*.json`` files, weights, and tokenizer."""

    config: Callable[[], dict[str, Any]]
    weights: Path
    tokenizer: Callable[[], Callable[..., Tensor]]


CUSTOM_CLIPS: dict[str, CustomCLIP] = {}
"""By the name that ``MODEL.CLIP.NAME`` and ``MODEL.CLIP.PRETRAINED`` take; :mod:`err_seg.mini.clip` adds its own."""


class CLIPConfigError(ValueError):
    """A CLIP name, model file or weights file that cannot be used; the message says what to do."""


def clip_model_config(name: str) -> dict:
    """Return open_clip's description (``embed_dim``, ``vision_cfg``, ``text_cfg``) of a model.

    Args:
        name: a model name of open_clip or of :data:`CUSTOM_CLIPS`, or the path of a JSON file in open_clip's format.

    Raises:
        CLIPConfigError: the name is unknown or the file unreadable.
    """
    if name in CUSTOM_CLIPS:
        config = CUSTOM_CLIPS[name].config()
    elif name.endswith(".json"):
        try:
            config = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CLIPConfigError(f"MODEL.CLIP.NAME: cannot read {name!r}: {error}") from error
        config = config.get("model_cfg", config)
    else:
        config = open_clip.get_model_config(name)
    if not config or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise CLIPConfigError(
            f"MODEL.CLIP.NAME: {name!r} is neither a model of open_clip (open_clip.list_models() lists them) nor a "
            "JSON file with embed_dim, vision_cfg and text_cfg"
        )
    return copy.deepcopy(config)


def build_clip(name: str, *, drop_path: float = 0.0, head_dropout: float = 0.0) -> OpenCLIP:
    """Build open_clip's CLIP with random weights, on the CPU.

    Args:
        name: see :func:`clip_model_config`.
        drop_path: rate of stochastic depth in a timm trunk in training (open_clip's own descriptions say 0.1).
        head_dropout: dropout in a ConvNeXt's projection head in training.

    Raises:
        CLIPConfigError: the name is unknown, the file unreadable, the text tower is of a kind that cannot be read, or
            the image tower has nothing that a rate is for.
    """
    config = clip_model_config(name)
    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("embed_cls") or text.get("pool_type", "argmax") != "argmax":
        raise CLIPConfigError(
            f"MODEL.CLIP.NAME: the text tower of {name} is not read at the end of the text, as that of CLIP is; use a "
            "model whose text_cfg has no hf_model_name, no embed_cls and no pool_type but argmax"
        )
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"].update(timm_model_pretrained=False, timm_drop_path=drop_path, timm_drop=head_dropout)
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    fields = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale")
    clip = kind(**{key: config[key] for key in fields if key in config})
    for module in clip.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    parts = list(clip.visual.modules())
    drop_paths = [part for part in parts if isinstance(part, DropPath)]
    dropouts = [part for part in parts if isinstance(part, nn.Dropout) and part.p == head_dropout]
    for option, rate, users in (("DROP_PATH", drop_path, drop_paths), ("HEAD_DROPOUT", head_dropout, dropouts)):
        if rate and not users:
            raise CLIPConfigError(f"MODEL.CLIP.{option}: the image tower of {name} does not support it; set it to 0")
    return clip


def text_tower(clip: OpenCLIP) -> Any:
    """Return the module that holds a CLIP's text tower: the CLIP itself, or a part of it.

    Returns:
        A module with ``token_embedding``, ``positional_embedding``, ``transformer``, ``ln_final``, ``text_projection``,
        ``context_length``, and ``attn_mask``, which is ``None`` where the tower is not causal.
    """
    return getattr(clip, "text", clip)


def load_clip_weights(clip: OpenCLIP, name: str, pretrained: str) -> None:
    """Load CLIP weights by tag or from a local file; ``""`` keeps the random ones.

    Args:
        clip: what :func:`build_clip` returned.
        name: the model's name; each model has its own tags.
        pretrained: a tag of open_clip (downloaded once to the Hugging Face cache), the model's own name for the
            weights that come with the package ("mini" and similar models), or the path of a weights file.

    Raises:
        CLIPConfigError: unknown tag, no file, no network, weights of another model (also of one that reads texts of
            another length), or NaN or infinity among them; says which file to put where.
    """
    if not pretrained:
        return
    tags = [name] if name in CUSTOM_CLIPS else open_clip.list_pretrained_tags_by_model(name)
    if Path(pretrained).is_file():
        path = pretrained
    elif pretrained in tags:
        path = str(CUSTOM_CLIPS[name].weights) if name in CUSTOM_CLIPS else _download(name, pretrained)
    else:
        raise CLIPConfigError(
            f"MODEL.CLIP.PRETRAINED: {pretrained!r} is no file and no tag of {name}; use a file, "
            f'"" for random weights, or a tag: {", ".join(tags) or "there is none"}'
        )
    try:
        if is_safetensors(path) and not path.endswith(".safetensors"):
            raise ValueError("it is a safetensors file; rename it so that it ends in .safetensors")
        state = open_clip.factory.load_state_dict(path, weights_only=True)
        positions = state.get("positional_embedding", state.get("text.positional_embedding"))
        if positions is not None and len(positions) != text_tower(clip).context_length:  # open_clip would interpolate
            raise ValueError(f"it reads {len(positions)} tokens of a text, the model {text_tower(clip).context_length}")
        open_clip.load_checkpoint(clip, path, strict=True, weights_only=True)
        if wrong := [key for key, value in clip.state_dict().items() if not all_finite(value)]:
            raise ValueError(f"NaN or infinity in {listed(wrong)}")
    except Exception as error:  # open_clip, safetensors and torch each raise their own kinds
        reason = "\n".join(line[:300] for line in str(error).splitlines())  # torch lists all names in a line
        raise CLIPConfigError(f"MODEL.CLIP.PRETRAINED: {path} holds no weights of {name}: {reason}") from error


def _download(name: str, tag: str) -> str:
    """Fetch the weights of a tag, or say where to put them by hand."""
    source = open_clip.get_pretrained_cfg(name, tag)
    try:
        return open_clip.download_pretrained(source)
    except Exception as error:  # every network library raises its own kinds
        where = f"https://huggingface.co/{source['hf_hub'].strip('/')}" if source.get("hf_hub") else source.get("url")
        raise CLIPConfigError(
            f"MODEL.CLIP.PRETRAINED: could not download {name} ({tag}): {type(error).__name__}: {error}\n"
            f"Without network: fetch open_clip_pytorch_model.bin or open_clip_model.safetensors from {where} on "
            "another machine, copy it here and set MODEL.CLIP.PRETRAINED to the path of that file"
        ) from error


def build_tokenizer(name: str) -> Callable[..., Tensor]:
    """Return the model's tokenizer, which maps texts and a ``context_length`` to int64 tokens (N, context_length)."""
    if name in CUSTOM_CLIPS:
        return CUSTOM_CLIPS[name].tokenizer()
    if name.endswith(".json"):
        return open_clip.SimpleTokenizer()
    return open_clip.get_tokenizer(name)


def encode_tokens(clip: OpenCLIP, tokens: Tensor) -> Tensor:
    """Run CLIP's text tower; a causal tower only as far as the longest prompt reaches.

    The output of a causal tower is read at the end-of-text token, so later positions cannot matter: a vocabulary of
    short names needs about 12 of the 77 positions. In any other tower the empty positions take part.

    Args:
        clip: open_clip's CLIP.
        tokens: (N, L) int64, L up to CLIP's context length, zero after the end of text.

    Returns:
        (N, D) embeddings, not normalised; equal to ``clip.encode_text`` of the tokens padded to the context length.
    """
    tower = text_tower(clip)
    if tower.attn_mask is None:
        tokens = F.pad(tokens, (0, tower.context_length - tokens.shape[1]))
    length = tokens.shape[1]
    mask = None if tower.attn_mask is None else tower.attn_mask[:length, :length]
    x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    x = tower.ln_final(tower.transformer(x, attn_mask=mask))
    end_of_text = tokens.argmax(dim=1)  # the end-of-text token has the largest id
    x = x[torch.arange(len(x), device=x.device), end_of_text]
    projection = tower.text_projection
    return projection(x) if isinstance(projection, nn.Module) else x @ projection


def embed_prompts(clip: OpenCLIP, tokens: Tensor) -> Tensor:
    """Embed classes of P prompts each: the prompts' normalised embeddings, averaged and normalised again.

    Args:
        clip: open_clip's CLIP.
        tokens: (T, P, L) int64; a row of zeros is not a prompt (classes may differ in their number of synonyms).

    Returns:
        (T, D) unit vectors.
    """
    num_classes, num_prompts, _ = tokens.shape
    embeddings = F.normalize(encode_tokens(clip, tokens.flatten(0, 1)), dim=-1)
    if num_prompts == 1:
        return embeddings
    is_prompt = tokens.any(dim=2, keepdim=True)  # T×P×1
    return F.normalize((embeddings.unflatten(0, (num_classes, num_prompts)) * is_prompt).sum(dim=1), dim=-1)
