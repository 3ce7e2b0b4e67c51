"""From configuration to network: the one place that reads ``cfg.MODEL``."""

import logging
from pathlib import Path
from typing import Any, Protocol

import torch
from fvcore.common.config import CfgNode

from err_seg.checkpoint import load_weights
from err_seg.config import ConfigError, settings_of, validate
from err_seg.device import resolve_device, resolve_precision
from err_seg.modeling.clip import build_clip, build_tokenizer, load_clip_weights
from err_seg.modeling.crm import CRM
from err_seg.modeling.err_seg import ERRSeg
from err_seg.modeling.escf import CFM, ESCF, SFM, ESCFLayer, ImageGuidance, TextGuidance
from err_seg.modeling.gud import GUD, UpsamplingStage
from err_seg.modeling.hsm import CostEmbedding
from err_seg.modeling.image_encoder import CLIPEncoder, ConvNeXtEncoder, ViTEncoder
from err_seg.modeling.tuning import set_trainable
from err_seg.prompts import PromptStyle
from err_seg.text_embeddings import TextEmbeddings, default_cache_dir

logger = logging.getLogger(__name__)

DEFAULT_NUM_KEPT = 32
# where weights are from and things lie; weights are known by their digest, wherever they are from
NOT_OF_THE_NETWORK = ("MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.DEVICE", "MODEL.TEXT.CACHE_DIR")


def build_model(cfg: CfgNode) -> ERRSeg:
    """Build ERR-Seg on ``cfg.MODEL.DEVICE``, in evaluation mode, seeded by ``cfg.SEED``.

    Weights come from ``MODEL.WEIGHTS`` (the whole network), else from ``MODEL.CLIP.PRETRAINED`` (CLIP alone); whatever
    neither names is random. (A training loop of your own calls ``model.train()`` first.)

    Raises:
        ConfigError: settings that contradict each other or the CLIP; names the key.
    """
    validate(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.SEED)
        model = ERRSeg(**model_arguments(cfg))
    clip = cfg.MODEL.CLIP
    set_trainable(model, image=clip.IMAGE_TUNING, text=clip.TEXT_TUNING, hsm_conv=cfg.MODEL.HSM.TRAIN_CONV)
    if cfg.MODEL.WEIGHTS:
        load_weights(model, cfg.MODEL.WEIGHTS)
    elif not cfg.MODEL.CLIP.PRETRAINED and cfg.MODEL.DEVICE != "meta":  # which only counts
        logger.warning(
            "CLIP has random weights (MODEL.CLIP.PRETRAINED and MODEL.WEIGHTS are empty): results mean nothing"
        )
    model.settings = network_settings(cfg)
    return model.to(resolve_device(cfg.MODEL.DEVICE)).eval()


def network_settings(cfg: CfgNode) -> dict[str, Any]:
    """List the settings that predictions depend on besides weights: dotted key to value, JSON-able."""
    of_network = ((key, value) for key, value in settings_of(cfg) if key.startswith("MODEL.") or key == "INPUT.SIZE")
    return {key: value for key, value in of_network if key not in NOT_OF_THE_NETWORK}


def model_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Translate the configuration into the keyword arguments of :class:`ERRSeg`."""
    encoder = build_encoder(cfg)
    num_maps = 2 if isinstance(encoder, ConvNeXtEncoder) and encoder.hsm is not None else 1
    return {"encoder": encoder, **head_arguments(cfg, encoder, num_maps), **input_arguments(cfg)}


class FeatureDims(Protocol):
    """What the parts behind CLIP must know of its features: channels of the embeddings and of the guidance maps."""

    @property
    def embedding_dim(self) -> int:
        """D, of the embeddings of pixels and words."""

    @property
    def deep_dims(self) -> tuple[int, ...]:
        """Channels of the guidance maps for ESCF, deepest first."""

    @property
    def shallow_dims(self) -> tuple[int, ...]:
        """Channels of the guidance maps for GUD, deepest first."""


def head_arguments(cfg: CfgNode, features: FeatureDims, num_maps: int) -> dict[str, Any]:
    """Build the parts behind CLIP, for ``num_maps`` cost maps, and the number of classes to keep."""
    model = cfg.MODEL
    keep_all = not model.CRM.ENABLED
    return {
        "crm": CRM(num_ranks=model.CRM.NUM_RANKS, rank_decay=model.CRM.RANK_DECAY),
        "cost_embedding": CostEmbedding(
            num_maps=num_maps, hidden_dim=model.COST_EMBEDDING.HIDDEN_DIM, dim=model.COST_EMBEDDING.DIM
        ),
        "escf": build_escf(cfg, features) if model.ESCF.ENABLED else None,
        "gud": build_gud(cfg, features),
        "num_kept": None if keep_all else model.CRM.NUM_KEPT or DEFAULT_NUM_KEPT,
        "num_kept_train": None if keep_all else model.CRM.NUM_KEPT_TRAIN,
    }


def input_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Translate what decides how pictures and words enter the network."""
    model, cache = cfg.MODEL, cfg.MODEL.TEXT.CACHE_DIR
    return {
        "size": cfg.INPUT.SIZE,
        "pixel_mean": model.PIXEL_MEAN,
        "pixel_std": model.PIXEL_STD,
        "tokenizer": build_tokenizer(model.CLIP.NAME),
        "prompt_style": PromptStyle(tuple(model.TEXT.TEMPLATES), model.TEXT.SYNONYMS),
        "text_embeddings": TextEmbeddings(None if cache == "none" else Path(cache) if cache else default_cache_dir()),
        "precision": resolve_precision(cfg.TEST.PRECISION, resolve_device(model.DEVICE)).name,
    }


def build_encoder(cfg: CfgNode) -> CLIPEncoder:
    """Build CLIP, load its weights, and wrap it for dense reading."""
    settings = cfg.MODEL.CLIP
    clip = build_clip(settings.NAME, drop_path=settings.DROP_PATH, head_dropout=settings.HEAD_DROPOUT)
    if not cfg.MODEL.WEIGHTS:
        load_clip_weights(clip, settings.NAME, settings.PRETRAINED)
    if hasattr(clip.visual, "trunk") and len(getattr(clip.visual.trunk, "stages", ())) == 4:
        return ConvNeXtEncoder(clip, hsm=cfg.MODEL.HSM.ENABLED, stage4_gradient=cfg.MODEL.HSM.STAGE4_GRADIENT)
    if not hasattr(clip.visual, "conv1") or not hasattr(clip.visual, "ln_pre"):
        raise ConfigError(f"MODEL.CLIP.NAME: {settings.NAME} is neither a ConvNeXt nor a ViT of open_clip's own")
    if cfg.MODEL.HSM.ENABLED:
        raise ConfigError(
            f"MODEL.HSM.ENABLED must be False with {settings.NAME}: a ViT has no stage-3 features (Table XII)"
        )
    if cfg.MODEL.GUD.ENABLED and any(cfg.MODEL.GUD.GUIDANCE_DIMS):
        raise ConfigError(
            f"MODEL.GUD.GUIDANCE_DIMS must be [0, 0, 0] with {settings.NAME}: a ViT has no features at strides 4 to 16 "
            "besides its output (Table XII)"
        )
    return ViTEncoder(clip)


def build_escf(cfg: CfgNode, features: FeatureDims) -> ESCF:
    """Build ESCF from ``MODEL.ESCF``."""
    escf = cfg.MODEL.ESCF
    shared = {
        "dim": cfg.MODEL.COST_EMBEDDING.DIM,
        "guidance_dim": escf.GUIDANCE_DIM,
        "num_heads": escf.NUM_HEADS,
        "mlp_ratio": escf.MLP_RATIO,
        "star": escf.STAR,
    }
    layers = []
    for i in range(escf.NUM_LAYERS):
        rate = escf.DROP_PATH * i / escf.NUM_LAYERS
        sfm = SFM(**shared, ssr_ratio=escf.SSR_RATIO, drop_path_rate=rate) if escf.SFM else None
        cfm = CFM(**shared, csr_ratio=escf.CSR_RATIO, drop_path_rate=rate) if escf.CFM else None
        layers.append(ESCFLayer(sfm=sfm, cfm=cfm))
    image_guidance = ImageGuidance(
        in_dims=features.deep_dims, hidden_dim=escf.GUIDANCE_HIDDEN_DIM, dim=escf.GUIDANCE_DIM
    )
    text_guidance = TextGuidance(in_dim=features.embedding_dim, dim=escf.GUIDANCE_DIM)
    return ESCF(
        layers=layers,
        image_guidance=image_guidance if escf.SFM else None,
        text_guidance=text_guidance if escf.CFM else None,
    )


def build_gud(cfg: CfgNode, features: FeatureDims) -> GUD:
    """Build GUD from ``MODEL.GUD``; without it, the head alone on X."""
    gud, dim = cfg.MODEL.GUD, cfg.MODEL.COST_EMBEDDING.DIM
    if not gud.ENABLED:
        return GUD(stages=[], dim=dim)
    feature_dims = features.shallow_dims or (0, 0, 0)
    in_dims = [dim, *gud.DIMS[:-1]]
    stages = [
        UpsamplingStage(
            in_dim=in_dim,
            out_dim=out_dim,
            feature_dim=feature_dim,
            guidance_dim=guidance_dim,
            scale=scale,
            kernel_size=gud.KERNEL_SIZE,
            stop_gradient=gud.STOP_GRADIENT,
        )
        for in_dim, out_dim, feature_dim, guidance_dim, scale in zip(
            in_dims, gud.DIMS, feature_dims, gud.GUIDANCE_DIMS, (1, 2, 2), strict=True
        )
    ]
    return GUD(stages=stages, dim=gud.DIMS[-1])
