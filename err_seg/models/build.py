"""From configuration to network: the one place that reads ``cfg.MODEL``."""

import logging
from pathlib import Path
from typing import Any

import torch

import err_seg.mini.clip  # noqa: F401  # registers the tiny CLIPs
from err_seg.config import Config, ConfigError, network_settings, validate
from err_seg.config.constants import COMPILE_MODES
from err_seg.modeling.clip import OpenCLIP, build_clip, build_tokenizer, load_clip_weights, text_tower
from err_seg.modeling.convnext import ConvNeXtEncoder
from err_seg.modeling.crm import CRM
from err_seg.modeling.encoder import CLIPEncoder, FeatureMaps
from err_seg.modeling.err_seg import ERRSegNetwork
from err_seg.modeling.escf import CFM, ESCF, SFM, ESCFLayer, ImageGuidance, TextGuidance
from err_seg.modeling.fastvit import FastViTEncoder
from err_seg.modeling.gud import GUD, UpsamplingStage
from err_seg.modeling.head import Head
from err_seg.modeling.hsm import CostEmbedding
from err_seg.modeling.vit import ViTEncoder
from err_seg.models.checkpoint import Checkpoint, CheckpointError, check_shapes, load_weights, open_checkpoint
from err_seg.plugins import COST_EMBEDDINGS, DECODERS, ENCODERS, FUSIONS
from err_seg.prediction.model import ERRSeg
from err_seg.text.cache import TextEmbeddings
from err_seg.text.encoder import VocabularyEncoder
from err_seg.text.prompts import PromptStyle
from err_seg.utils.device import resolve_device, resolve_precision
from err_seg.utils.files import cache_dir

logger = logging.getLogger(__name__)

ENCODER_KINDS: tuple[type[CLIPEncoder], ...] = (ConvNeXtEncoder, FastViTEncoder, ViTEncoder)
"""The kinds of image tower that the package itself reads densely."""

DEFAULT_NUM_KEPT = 32


def build_model(cfg: Config, weights: Checkpoint | None = None) -> ERRSeg:
    """Build ERR-Seg on ``cfg.MODEL.DEVICE``, in evaluation mode, seeded by ``cfg.SEED``.

    Weights come from ``MODEL.WEIGHTS`` (the whole network; ``weights`` if the file has been read already), else from
    ``MODEL.CLIP.PRETRAINED`` (CLIP alone); whatever neither of them covers is random. (If you write your own training
    loop, call ``model.train()`` first.)

    Raises:
        ConfigError: settings contradict each other or the CLIP; the message names the key.
    """
    validate(cfg)
    if cfg.MODEL.WEIGHTS:
        weights = weights or open_checkpoint(Path(cfg.MODEL.WEIGHTS))
        _check_sizes(cfg, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.SEED)
        encoder = build_encoder(cfg)
        model = build_network(cfg, encoder, build_head(cfg, encoder.maps))
    if weights:
        load_weights(model, weights)
        logger.info("weights: %s", model.source)
    elif not cfg.MODEL.CLIP.PRETRAINED and cfg.MODEL.DEVICE != "meta":  # "meta" serves only for counting
        logger.warning(
            "CLIP has random weights (MODEL.CLIP.PRETRAINED and MODEL.WEIGHTS are empty): until they are trained, "
            "results mean nothing"
        )
    model.settings = network_settings(cfg)
    return model.to(resolve_device(cfg.MODEL.DEVICE)).eval()


def _check_sizes(cfg: Config, weights: Checkpoint) -> None:
    """Raise :class:`CheckpointError` if weights do not fit the configured sizes, before a network takes its memory."""
    layers = {name.split(".")[3] for name in weights.weights if name.startswith("head.escf.layers.")}
    escf = cfg.MODEL.ESCF
    if escf.ENABLED and escf.NAME == "ESCF" and len(layers) < escf.NUM_LAYERS:
        raise CheckpointError(
            f"{weights.source.file} holds {len(layers)} layers of ESCF, but MODEL.ESCF.NUM_LAYERS is "
            f"{escf.NUM_LAYERS}; give the configuration that it was trained with"
        )
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            encoder = build_encoder(cfg)
            outline = ERRSegNetwork(encoder=encoder, head=build_head(cfg, encoder.maps))
    except (RuntimeError, TypeError, OverflowError) as error:  # of sizes that no tensor can have
        raise CheckpointError(f"the sizes under MODEL do not make a network: {error}") from error
    check_shapes(outline, weights.weights, weights.source.file)


def build_compiled(cfg: Config, weights: Checkpoint | None = None) -> ERRSeg:
    """Build ERR-Seg as :func:`build_model` does, to predict and evaluate with as ``TEST.COMPILE`` says."""
    return compile_network(cfg, build_model(cfg, weights))


def compile_network(cfg: Config, model: ERRSeg) -> ERRSeg:
    """Compile a network that will not be trained, as ``TEST.COMPILE`` says, and return it."""
    if cfg.TEST.COMPILE:
        model.compile(**{"mode" if cfg.TEST.COMPILE in COMPILE_MODES else "backend": cfg.TEST.COMPILE})
    return model


def build_network(cfg: Config, encoder: CLIPEncoder, head: Head) -> ERRSeg:
    """Put the network together, with the settings for how images and words enter it."""
    return ERRSeg(
        encoder=encoder,
        head=head,
        vocabulary_encoder=build_vocabulary_encoder(cfg, encoder.clip),
        size=cfg.INPUT.SIZE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        precision=resolve_precision(cfg.TEST.PRECISION, resolve_device(cfg.MODEL.DEVICE)).name,
    )


def build_vocabulary_encoder(cfg: Config, clip: OpenCLIP) -> VocabularyEncoder:
    """Build the reader of class names from ``MODEL.TEXT``."""
    text, cache = cfg.MODEL.TEXT, cfg.MODEL.TEXT.CACHE_DIR
    return VocabularyEncoder(
        build_tokenizer(cfg.MODEL.CLIP.NAME),
        text_tower(clip).context_length,
        PromptStyle(tuple(text.TEMPLATES), text.SYNONYMS),
        TextEmbeddings(None if cache == "none" else Path(cache or cache_dir() / "text_embeddings")),
    )


def build_encoder(cfg: Config) -> CLIPEncoder:
    """Build CLIP, load its weights, wrap it for dense reading, and choose which of its parameters train."""
    settings = cfg.MODEL.CLIP
    clip = build_clip(settings.NAME, drop_path=settings.DROP_PATH, head_dropout=settings.HEAD_DROPOUT)
    if not cfg.MODEL.WEIGHTS:
        load_clip_weights(clip, settings.NAME, settings.PRETRAINED)
    encoder: CLIPEncoder = ENCODERS.get(settings.ENCODER)(cfg, clip)
    encoder.set_trainable(image=settings.IMAGE_TUNING, text=settings.TEXT_TUNING, hsm_conv=cfg.MODEL.HSM.TRAIN_CONV)
    return encoder


@ENCODERS.register("auto")
def read_clip(cfg: Config, clip: OpenCLIP) -> CLIPEncoder:
    """Wrap a CLIP of open_clip for dense reading, as its image tower needs.

    Raises:
        ConfigError: no class of the package reads it, or it lacks what HSM or GUD is configured to use.
    """
    hsm, kind = cfg.MODEL.HSM, encoder_of(clip)
    if kind is None:
        name = cfg.MODEL.CLIP.NAME
        raise ConfigError(f"MODEL.CLIP.NAME: {name} is neither a ConvNeXt, a FastViT nor a ViT of open_clip's own")
    check_fits(cfg, kind)
    options = {"hsm": hsm.ENABLED, "stage4_gradient": hsm.STAGE4_GRADIENT} if kind.is_hierarchical else {}
    return kind(clip, **options)


def check_fits(cfg: Config, kind: type[CLIPEncoder]) -> None:
    """Raise :class:`ConfigError` if HSM or GUD is configured to use what an encoder of this kind does not have."""
    if not kind.is_hierarchical:
        lacks = f"with {cfg.MODEL.CLIP.NAME}, which has no features at strides 4 to 16 besides its output (Table XII)"
        if cfg.MODEL.HSM.ENABLED:
            raise ConfigError(f"MODEL.HSM.ENABLED must be False {lacks}")
        if cfg.MODEL.GUD.ENABLED and any(cfg.MODEL.GUD.GUIDANCE_DIMS):
            raise ConfigError(f"MODEL.GUD.GUIDANCE_DIMS must be [0, 0, 0] {lacks}")


def encoder_of(clip: OpenCLIP) -> type[CLIPEncoder] | None:
    """Return the class that reads a CLIP's image tower, or ``None`` if no class does."""
    return next((kind for kind in ENCODER_KINDS if kind.reads(clip)), None)


def default_num_kept(cfg: Config) -> int | None:
    """Return the network's own K in evaluation, for vocabularies without one; ``None`` keeps all classes."""
    return cfg.MODEL.CRM.NUM_KEPT or DEFAULT_NUM_KEPT if cfg.MODEL.CRM.ENABLED else None


def build_head(cfg: Config, maps: FeatureMaps) -> Head:
    """Build the parts that follow an encoder with these maps."""
    model = cfg.MODEL
    keep_all = not model.CRM.ENABLED
    return Head(
        crm=CRM(
            num_ranks=model.CRM.NUM_RANKS,
            rank_decay=model.CRM.RANK_DECAY,
            num_kept=default_num_kept(cfg),
            num_kept_train=None if keep_all else model.CRM.NUM_KEPT_TRAIN,
            min_score=0.0 if keep_all else model.CRM.MIN_SCORE,
            min_score_train=0.0 if keep_all else model.CRM.MIN_SCORE_TRAIN,
            min_kept=model.CRM.MIN_KEPT,
        ),
        cost_embedding=COST_EMBEDDINGS.get(model.COST_EMBEDDING.NAME)(cfg, maps),
        escf=FUSIONS.get(model.ESCF.NAME)(cfg, maps) if model.ESCF.ENABLED else None,
        gud=DECODERS.get(model.GUD.NAME)(cfg, maps),
    )


@COST_EMBEDDINGS.register("CostEmbedding")
def build_cost_embedding(cfg: Config, maps: FeatureMaps) -> CostEmbedding:
    """Build the embedding of the cost maps from ``MODEL.COST_EMBEDDING``."""
    embedding = cfg.MODEL.COST_EMBEDDING
    return CostEmbedding(num_maps=len(maps.embeddings), hidden_dim=embedding.HIDDEN_DIM, dim=embedding.DIM)


@FUSIONS.register("ESCF")
def build_escf(cfg: Config, maps: FeatureMaps) -> ESCF:
    """Build ESCF from ``MODEL.ESCF``."""
    escf = cfg.MODEL.ESCF
    shared: dict[str, Any] = {
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
    in_dims = [deep.channels for deep in maps.deep]
    image_guidance = ImageGuidance(in_dims=in_dims, hidden_dim=escf.GUIDANCE_HIDDEN_DIM, dim=escf.GUIDANCE_DIM)
    text_guidance = TextGuidance(in_dim=maps.embeddings[0].channels, dim=escf.GUIDANCE_DIM)
    return ESCF(
        layers=layers,
        image_guidance=image_guidance if escf.SFM else None,
        text_guidance=text_guidance if escf.CFM else None,
    )


@DECODERS.register("GUD")
def build_gud(cfg: Config, maps: FeatureMaps) -> GUD:
    """Build GUD from ``MODEL.GUD``; if that leaves GUD out, only its last layer, applied to X."""
    gud, dim = cfg.MODEL.GUD, cfg.MODEL.COST_EMBEDDING.DIM
    if not gud.ENABLED:
        return GUD(stages=[], dim=dim)
    feature_dims = [shallow.channels for shallow in maps.shallow] or (0, 0, 0)
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
