"""Contrastive pre-training of the tiny CLIPs on captioned images of all sixty classes.

Crops show a single class, scenes several; captions name what is there, in all combinations of attributes, but never
where it is: as with the web's captions, no label map is read.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from err_seg.build import encoder_of
from err_seg.mini import clip as mini
from err_seg.mini.scenes import MiniCrops, MiniScenes
from err_seg.mini.vocabulary import PROMPTS, VOCABULARY
from err_seg.modeling.clip import OpenCLIP, build_clip
from err_seg.modeling.encoder import CLIPEncoder
from err_seg.modeling.layers import resize


class PretrainingError(ValueError):
    """Pre-training that cannot run here; the message says what to do."""


@dataclass(frozen=True)
class PretrainingConfig:
    """How a tiny CLIP is taught; by default, the ConvNeXt.

    Attributes:
        steps: optimisation steps.
        crops, scenes: different images of each kind; each is seen in several sizes and mirrored.
        crop_size, scene_size: side as drawn, pixels.
        crop_sides, scene_sides: what a step's images are resized to, drawn for height and width apart; multiples of
            the network's stride.
        crop_batch, scene_batch: images per step.
        scene_share: share of the steps that show scenes.
        muon_lr: Muon's learning rate, for the matrices inside the blocks of both towers.
        adam_lr: AdamW's, for all else.
        weight_decay: of both.
        warmup: steps of linear warm-up, before half a cosine to 0.
        seed: of weights, crops and batches.
    """

    steps: int = 700
    crops: int = 9600
    crop_size: int = 96
    crop_sides: tuple[int, ...] = (64,)
    crop_batch: int = 128
    scenes: int = 4800
    scene_size: int = 96
    scene_sides: tuple[int, ...] = (96, 128)
    scene_batch: int = 64
    scene_share: float = 0.7
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 50
    seed: int = 0


SETTINGS = {
    mini.NAME: PretrainingConfig(),
    # Larger images, in which a patch of 16 pixels shows a part of an object; and a lower rate, since each of AdamW's
    # steps changes a patch's embedding by the sum over 768 values, and a shape is not learned while colours jump.
    mini.VIT_NAME: PretrainingConfig(crop_sides=(96,), scene_size=128, scene_sides=(96, 128, 160), adam_lr=2e-4),
    mini.FASTVIT_NAME: PretrainingConfig(),
}
"""What the weights that the package brings were made with, by name; all saw as many images in as many steps."""


def pretrain(name: str, config: PretrainingConfig, pixel_mean: Tensor, pixel_std: Tensor) -> OpenCLIP:
    """Teach a tiny CLIP which words belong to which images.

    Args:
        name: the CLIP, one of :data:`err_seg.mini.clip.CLIPS`.
        config: see there.
        pixel_mean, pixel_std: (3, 1, 1) statistics of the input, RGB in 0..255.

    Returns:
        open_clip's CLIP, on the CPU, in evaluation mode.

    Raises:
        PretrainingError: see :func:`build_optimizers`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        clip = build_clip(name)
        init_weights(clip)
    encoder = dense_encoder(clip.train())
    optimizers = build_optimizers(clip, config)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _lr_factor(step, config)) for o in optimizers]
    captions = torch.stack([mini.tokenizer()([prompt.format(name) for name in VOCABULARY]) for prompt in PROMPTS])
    progress = tqdm(batches(config), "pre-train CLIP", config.steps, unit="step")
    for images, shares, prompts in progress:
        text = captions[prompts, torch.arange(len(VOCABULARY))]
        loss = contrastive_loss(encoder, (images - pixel_mean) / pixel_std, shares, text)
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


def init_weights(clip: OpenCLIP) -> None:
    """Start the image tower with variance-preserving weights; the libraries' own are too small for a short training."""
    for module in clip.visual.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)


def build_optimizers(clip: OpenCLIP, config: PretrainingConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks of both towers, AdamW for the rest.

    AdamW alone learns the colours within the same number of steps, and neither shapes nor textures.

    Raises:
        PretrainingError: this torch has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise PretrainingError(
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


def batches(config: PretrainingConfig) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield images (B, 3, h, w) in 0..255, shares (B, T) and a prompt for each class (T,), ``steps`` times.

    A step shows crops or scenes. Shares say which classes' names are an image's captions; they sum to 1.
    """
    sources = draw_crops(config), draw_scenes(config)
    sides = config.crop_sides, config.scene_sides
    counts = config.crop_batch, config.scene_batch
    generator = torch.Generator().manual_seed(config.seed)
    orders = [torch.empty(0, dtype=torch.int64) for _ in sources]
    for _ in range(config.steps):
        kind = int(torch.rand((), generator=generator) < config.scene_share)
        images, shares = sources[kind]
        while len(orders[kind]) < counts[kind]:
            orders[kind] = torch.cat([orders[kind], torch.randperm(len(images), generator=generator)])
        chosen, orders[kind] = orders[kind].tensor_split([counts[kind]])
        draw = torch.randint(len(sides[kind]), (2,), generator=generator)
        size = sides[kind][draw[0]], sides[kind][draw[1]]
        batch = images[chosen].float()
        mirrored = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        batch = resize(batch, size)
        yield batch, shares[chosen], torch.randint(len(PROMPTS), (len(VOCABULARY),), generator=generator)


def draw_crops(config: PretrainingConfig) -> tuple[Tensor, Tensor]:
    """Draw images of single classes: (N, 3, h, w) uint8 and shares (N, T)."""
    crops = MiniCrops("train", config.crops, config.seed, config.crop_size)
    items = [crops[i][:2] for i in tqdm(range(len(crops)), "draw crops", unit="crop")]
    images = torch.from_numpy(np.stack([image for image, _ in items])).permute(0, 3, 1, 2)
    return images, F.one_hot(torch.tensor([index for _, index in items]), len(VOCABULARY)).float()


def draw_scenes(config: PretrainingConfig) -> tuple[Tensor, Tensor]:
    """Draw scenes of all classes with the names of what they show, but not where: see :func:`draw_crops`."""
    scenes = MiniScenes("train", config.scene_size, "all", length=config.scenes, seed=config.seed)
    images, shares = [], torch.zeros(len(scenes), len(VOCABULARY))
    for i in tqdm(range(len(scenes)), "draw scenes", unit="scene"):
        plan = scenes.plan(i)
        images.append(torch.from_numpy(scenes[i].image).permute(2, 0, 1))
        shares[i, [*plan.walls, *(thing.class_index for thing in plan.things)]] = 1
    return torch.stack(images), shares / shares.sum(dim=1, keepdim=True)


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
def zero_shot_accuracy(clip: OpenCLIP, crops: MiniCrops, pixel_mean: Tensor, pixel_std: Tensor) -> dict[str, float]:
    """Classify crops among all 60 names by cosine similarity; return the share of right ones: objects, walls, all."""
    images = torch.stack([torch.from_numpy(crops[i][0]).permute(2, 0, 1) for i in range(len(crops))])
    classes = torch.tensor([crops[i][1] for i in range(len(crops))])
    text = F.normalize(clip.encode_text(mini.tokenizer()([PROMPTS[0].format(name) for name in VOCABULARY])), dim=1)
    normalised = (images.float() - pixel_mean) / pixel_std
    scores = torch.cat([F.normalize(clip.encode_image(part), dim=1) @ text.T for part in normalised.split(128)])
    right = (scores.argmax(1) == classes).float()
    walls = torch.tensor([name.endswith("wall") for name in VOCABULARY])[classes]
    return {"objects": right[~walls].mean().item(), "walls": right[walls].mean().item(), "all": right.mean().item()}


def _lr_factor(step: int, config: PretrainingConfig) -> float:
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))
