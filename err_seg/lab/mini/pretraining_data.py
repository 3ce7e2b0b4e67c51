"""The settings of the tiny CLIPs' pre-training, and its batches of captioned images."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from err_seg.mini.crops import MiniCrops
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import PROMPTS, SIXTY, mini_vocabulary
from err_seg.modeling.layers import resize
from err_seg.utils.progress import ProgressBar


@dataclass(frozen=True)
class PretrainingConfig:
    """How a tiny CLIP is pre-trained; by default, the ConvNeXt.

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
        names: how many names the world has; beyond 60, only the seen ones are shown and named.
        captions: how many names a step compares at least, drawn anew for each; all, if the world has no more.
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
    names: int = field(default=SIXTY, repr=False)  # younger than the weights that quote this as text
    captions: int = field(default=SIXTY, repr=False)

    @property
    def classes(self) -> str:
        """The class set that is shown: "all" or "seen"."""
        return "all" if self.names == SIXTY else "seen"


class CaptionedBatch(NamedTuple):
    """What a step shows.

    Attributes:
        images: (B, 3, h, w) in 0..255.
        classes: (T,) the names that are compared, indices into the world's vocabulary.
        prompts: (T,) which prompt each is put in.
        shares: (B, T) which names are an image's captions; rows sum to 1.
    """

    images: Tensor
    classes: Tensor
    prompts: Tensor
    shares: Tensor


def batches(config: PretrainingConfig) -> Iterator[CaptionedBatch]:
    """Yield ``steps`` batches; each shows crops or scenes."""
    names, seed, class_set = config.names, config.seed, config.classes
    sources = (
        draw_crops(MiniCrops("train", config.crops, seed, config.crop_size, names=names, classes=class_set)),
        draw_scenes(MiniScenes("train", config.scene_size, class_set, length=config.scenes, seed=seed, names=names)),
    )
    sides = config.crop_sides, config.scene_sides
    counts = config.crop_batch, config.scene_batch
    known = torch.tensor(mini_vocabulary(names).labels(class_set))
    generator = torch.Generator().manual_seed(config.seed)
    orders = [torch.empty(0, dtype=torch.int64) for _ in sources]
    for _ in range(config.steps):
        kind = int(torch.rand((), generator=generator) < config.scene_share)
        images, captions = sources[kind]
        while len(orders[kind]) < counts[kind]:
            orders[kind] = torch.cat([orders[kind], torch.randperm(len(images), generator=generator)])
        chosen, orders[kind] = orders[kind].tensor_split([counts[kind]])
        draw = torch.randint(len(sides[kind]), (2,), generator=generator)
        size = sides[kind][draw[0]], sides[kind][draw[1]]
        batch = images[chosen].float()
        mirrored = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        batch = resize(batch, size)
        shown, classes = captions[chosen], known
        if len(known) > config.captions:
            others = known[torch.randperm(len(known), generator=generator)[: config.captions]]
            classes = torch.cat([others, shown[shown >= 0]]).unique()
        prompts = torch.randint(len(PROMPTS), (len(classes),), generator=generator)
        yield CaptionedBatch(batch, classes, prompts, as_shares(shown, classes))


def as_shares(captions: Tensor, classes: Tensor) -> Tensor:
    """Turn the classes of images, (B, N) and -1 where there are fewer, into shares (B, T) of the compared ones."""
    named = (captions[:, :, None] == classes).any(dim=1).float()
    return named / named.sum(dim=1, keepdim=True)


def draw_crops(crops: MiniCrops) -> tuple[Tensor, Tensor]:
    """Draw images of single classes: (N, 3, h, w) uint8, and their classes (N, 1)."""
    items = [crops[i][:2] for i in ProgressBar(range(len(crops)), "draw crops", unit="crop")]
    images = torch.from_numpy(np.stack([image for image, _ in items])).permute(0, 3, 1, 2)
    return images, torch.tensor([[index] for _, index in items])


def draw_scenes(scenes: MiniScenes) -> tuple[Tensor, Tensor]:
    """Draw scenes with the names of what they show, but not where: (N, 3, h, w) uint8, and classes (N, M)."""
    progress = ProgressBar(range(len(scenes)), "draw scenes", unit="scene")
    images = torch.stack([torch.from_numpy(scenes[i].image).permute(2, 0, 1) for i in progress])
    plans = [scenes.plan(i) for i in range(len(scenes))]
    captions = [torch.tensor([*plan.walls, *(thing.class_index for thing in plan.things)]) for plan in plans]
    return images, pad_sequence(captions, batch_first=True, padding_value=-1)
