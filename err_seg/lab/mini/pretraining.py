"""Contrastive pre-training of the tiny CLIPs on captioned images of the classes.

Crops show a single class, scenes several; captions name what is there, in all combinations of attributes, but never
where it is: as with the web's captions, no label map is read.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from err_seg.lab.mini.pretraining_data import PretrainingConfig, batches, draw_crops
from err_seg.mini import clip as mini
from err_seg.mini.crops import MiniCrops
from err_seg.mini.vocabulary import MOST_NAMES, PROMPTS, SIXTY, mini_vocabulary
from err_seg.modeling.clip import OpenCLIP, build_clip
from err_seg.modeling.encoder import CLIPEncoder
from err_seg.models.build import encoder_of
from err_seg.utils.progress import ProgressBar

SETTINGS = {
    mini.NAME: PretrainingConfig(),
    # Larger images, in which a patch of 16 pixels shows a part of an object; and a lower rate, since each of AdamW's
    # steps changes a patch's embedding by the sum over 768 values, and a shape is not learned while colours jump.
    mini.VIT_NAME: PretrainingConfig(crop_sides=(96,), scene_size=128, scene_sides=(96, 128, 160), adam_lr=2e-4),
    mini.FASTVIT_NAME: PretrainingConfig(),
    # More images, since there are more words and every pattern has a colour of its own.
    mini.LARGE_NAME: PretrainingConfig(
        steps=4000,
        crops=40000,
        crop_batch=96,
        scenes=20000,
        scene_sides=(96, 128),
        scene_batch=40,
        scene_share=0.5,
        names=MOST_NAMES,
        captions=192,
    ),
}
"""What the weights that the package brings were made with, by name."""


def pretrain(name: str, config: PretrainingConfig, pixel_mean: Tensor, pixel_std: Tensor) -> OpenCLIP:
    """Train a tiny CLIP, one of :data:`err_seg.mini.clip.CLIPS`, to match words and images.

    ``pixel_mean`` and ``pixel_std`` are the (3, 1, 1) statistics of the input, RGB in 0..255.

    Returns:
        open_clip's CLIP, on the CPU, in evaluation mode.

    Raises:
        ValueError: this torch has no Muon.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        clip = build_clip(name)
        for module in clip.visual.modules():
            # preserves the variance; the libraries' own weights are too small for a short training
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    encoder = dense_encoder(clip.train())
    optimizers = build_optimizers(clip, config)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _lr_factor(step, config)) for o in optimizers]
    vocabulary, tokenize = mini_vocabulary(config.names).names, mini.tokenizer(name)
    captions = torch.stack([tokenize([prompt.format(words) for words in vocabulary]) for prompt in PROMPTS])
    progress = ProgressBar(batches(config), "pre-train CLIP", config.steps, unit="step")
    for batch in progress:
        text = captions[batch.prompts, batch.classes]
        loss = contrastive_loss(encoder, (batch.images - pixel_mean) / pixel_std, batch.shares, text)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            clip.logit_scale.clamp_(0, math.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return clip.eval()


def dense_encoder(clip: OpenCLIP) -> CLIPEncoder:
    """Read a CLIP as ERR-Seg does; a ConvNeXt without HSM, whose branch is no part of CLIP."""
    kind = encoder_of(clip)
    assert kind is not None
    options = {"hsm": False} if kind.is_hierarchical else {}
    return kind(clip, **options)


def build_optimizers(clip: OpenCLIP, config: PretrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks of both towers, AdamW for the rest.

    AdamW alone learns the colours within the same number of steps, and neither shapes nor textures.

    Raises:
        ValueError: this torch has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"pre-training the tiny CLIP needs torch 2.9 or newer (torch.optim.Muon), this is {torch.__version__}; "
            "everything else, and the weights that the package brings, work without"
        )
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in clip.named_parameters():
        is_inside = "blocks" in name
        if is_inside and parameter.ndim == 4 and parameter.shape[1] > 1 and parameter[0, 0].numel() == 1:
            matrices.append(as_matrix(parameter))
        else:
            (matrices if is_inside and parameter.ndim == 2 else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay),
        torch.optim.AdamW(rest, lr=config.adam_lr, weight_decay=config.weight_decay),
    ]


def as_matrix(weight: nn.Parameter) -> nn.Parameter:
    """Return a 1×1 convolution's weight as the matrix that it is, in the same memory; it takes over the gradients."""
    matrix = nn.Parameter(weight.detach().flatten(1))

    def take_over(parameter: Tensor) -> None:
        assert parameter.grad is not None
        matrix.grad, parameter.grad = parameter.grad.flatten(1), None

    weight.register_post_accumulate_grad_hook(take_over)
    return matrix


def contrastive_loss(encoder: CLIPEncoder, images: Tensor, shares: Tensor, text: Tensor) -> Tensor:
    """CLIP's loss for images with several captions, asked of every pixel.

    Each image is to find its captions among all T, and each caption that occurs its images among all B. An image
    is not compared as a whole: each of its pixels, read densely as ERR-Seg reads CLIP, chooses among the captions, and
    their mean is the image's choice. A pixel's best choice is thus the caption of what it shows, and the embeddings
    tell places apart although no caption does. With images of one pixel this is CLIP's own loss.

    Args:
        encoder: the CLIP that learns, read densely; see :func:`dense_encoder`.
        images: (B, 3, h, w), normalised.
        shares: (B, T) of each caption in each image; rows sum to 1.
        text: (T, L) int64 tokens of one caption per class.

    Returns:
        A scalar.
    """
    clip = encoder.clip
    pixels = F.normalize(encoder(images).embeddings[0], dim=1).flatten(2)  # B×D×N
    captions = F.normalize(clip.encode_text(text), dim=1)
    logits = clip.logit_scale.exp() * torch.einsum("bdn,td->bnt", pixels, captions)
    # what an image shows is what its pixels show on average
    of_image = logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(logits.shape[1])  # B×T
    of_caption = logits.flatten(0, 1).log_softmax(dim=0).view_as(logits).logsumexp(dim=1)  # B×T
    total = shares.sum(0)
    to_images = (of_caption * shares).sum(0)[total > 0] / total[total > 0]
    to_captions = (of_image * shares).sum(1)
    return -(to_captions.mean() + to_images.mean()) / 2


@torch.no_grad()
def zero_shot_accuracy(
    clip: OpenCLIP, crops: MiniCrops, pixel_mean: Tensor, pixel_std: Tensor, name: str = mini.NAME
) -> dict[str, float]:
    """Classify crops among all names of their world by cosine similarity; ``name`` is the CLIP's, for its tokenizer.

    Returns:
        The share of right ones: "objects", "walls" and "all"; beyond 60 names also "seen" and "unseen", which
        pre-training has named or not.
    """
    images, indices = draw_crops(crops)
    classes = indices[:, 0]
    known = mini_vocabulary(crops.names)
    tokens = mini.tokenizer(name)([PROMPTS[0].format(words) for words in known.names])
    text = torch.cat([F.normalize(clip.encode_text(part), dim=1) for part in tokens.split(1024)])
    normalised = (images.float() - pixel_mean) / pixel_std
    scores = torch.cat([F.normalize(clip.encode_image(part), dim=1) @ text.T for part in normalised.split(128)])
    right = (scores.argmax(1) == classes).float()
    walls, seen = (torch.isin(classes, torch.tensor(group)) for group in (known.walls, known.seen))
    groups = {"objects": ~walls, "walls": walls, "all": torch.ones_like(walls)}
    if crops.names != SIXTY:
        groups |= {"seen": seen, "unseen": ~seen}
    return {group: right[chosen].mean().item() for group, chosen in groups.items()}


def _lr_factor(step: int, config: PretrainingConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))
