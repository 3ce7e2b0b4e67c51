"""The tree of configuration keys: each with its meaning, its default and the range of its values."""

import copy
from typing import Any

from fvcore.common.config import CfgNode

from err_seg.choices import PRECISIONS
from err_seg.prompts import DEFAULT_TEMPLATE
from err_seg.ranges import (
    COMPILER,
    DATASET,
    DATASETS,
    ENTRIES,
    FOLDER,
    NORM,
    ODD,
    POSITIVE,
    POSITIVE_SHARE,
    PROBABILITY,
    SCALES,
    SHARE,
    TEMPLATES,
    TEXT,
    TEXT_OR_NONE,
    Range,
    any_of,
    at_least,
    multiple_of,
    numbers,
    one_of,
)

TUNINGS = ("none", "weight", "full")


class Keys:
    """The declared keys, dotted: their defaults and the ranges of their values, by key."""

    def __init__(self) -> None:
        self.defaults: dict[str, Any] = {}
        self.ranges: dict[str, Range] = {}

    def add(self, key: str, default: Any, range_: Range) -> None:
        """Declare a key; its values are of the default's type, and in the range."""
        self.defaults[key], self.ranges[key] = default, range_

    def switch(self, key: str, default: bool) -> None:
        """Declare a key that is True or False."""
        self.defaults[key] = default


def default_cfg() -> CfgNode:
    """Return the tree of defaults: the base network of the paper and its training on COCO-Stuff."""
    cfg = CfgNode()
    for key, default in KEYS.defaults.items():
        *path, leaf = key.split(".")
        node = cfg
        for name in path:
            node = node.setdefault(name, CfgNode())
        node[leaf] = copy.copy(default)
    return cfg


def _add_clip_and_classes(keys: Keys) -> None:
    """Add the keys of CLIP, prompts, cost maps and the choice of classes."""
    keys.add("MODEL.META_ARCHITECTURE", "ERRSeg", TEXT)
    # "auto" (CUDA, else MPS, else the CPU), or a torch device such as "cuda:1"
    keys.add("MODEL.DEVICE", "auto", TEXT)
    # weights of the whole network to start from: our own or a released checkpoint; "" for none
    keys.add("MODEL.WEIGHTS", "", TEXT_OR_NONE)
    # statistics of the input, RGB in 0..255 (ImageNet's, also for CLIP)
    keys.add("MODEL.PIXEL_MEAN", [123.675, 116.280, 103.530], numbers(at_least(0), 3))
    keys.add("MODEL.PIXEL_STD", [58.395, 57.120, 57.375], numbers(POSITIVE, 3))

    # a model of open_clip (a ConvNeXt, or a ViT for Table XII), a JSON file in open_clip's format, "mini" or "mini_vit"
    keys.add("MODEL.CLIP.NAME", "convnext_base_w_320", TEXT)
    # CLIP weights: a tag of open_clip, a local file, "mini" or "mini_vit" for the package's own, or "" for random ones
    keys.add("MODEL.CLIP.PRETRAINED", "", TEXT_OR_NONE)
    # stochastic depth of the ConvNeXt trunk and dropout in its MLP head, in training
    keys.add("MODEL.CLIP.DROP_PATH", 0.0, PROBABILITY)
    keys.add("MODEL.CLIP.HEAD_DROPOUT", 0.0, PROBABILITY)
    # what trains in each tower: "none", "weight" (the paper's choice of weights) or "full" (Table II)
    keys.add("MODEL.CLIP.IMAGE_TUNING", "weight", one_of(*TUNINGS))
    keys.add("MODEL.CLIP.TEXT_TUNING", "weight", one_of(*TUNINGS))

    # prompts; {} is the class name; the embeddings of several are averaged
    keys.add("MODEL.TEXT.TEMPLATES", [DEFAULT_TEMPLATE], TEMPLATES)
    # of a name like "bag, handbag": the "first" synonym, or the "average" of all
    keys.add("MODEL.TEXT.SYNONYMS", "first", one_of("first", "average"))
    # folder of cached text embeddings; "" for $ERR_SEG_CACHE or ~/.cache/err_seg, "none" for no cache on disk
    keys.add("MODEL.TEXT.CACHE_DIR", "", TEXT_OR_NONE)

    # hierarchical cost maps of strides 16 and 32; off: stride 32 alone (Table V)
    keys.switch("MODEL.HSM.ENABLED", True)
    # which map trains the stage-4 blocks that both share: "both", "E16" or "E32" (Table VI)
    keys.add("MODEL.HSM.STAGE4_GRADIENT", "both", one_of("both", "E16", "E32"))
    # train the branch's norm and convolution, which the released models leave frozen
    keys.switch("MODEL.HSM.TRAIN_CONV", False)

    # off: all classes are kept, in training and evaluation (Table V)
    keys.switch("MODEL.CRM.ENABLED", True)
    # K in evaluation (Table XIII); 0: the benchmark's own, and 32 where there is no benchmark
    keys.add("MODEL.CRM.NUM_KEPT", 0, at_least(0))
    # K in training (Fig. 7)
    keys.add("MODEL.CRM.NUM_KEPT_TRAIN", 32, POSITIVE)
    # R, how many ranks of a pixel score (Table VII)
    keys.add("MODEL.CRM.NUM_RANKS", 3, POSITIVE)
    # b of the rank weights 1, b, b², ... (Fig. 6)
    keys.add("MODEL.CRM.RANK_DECAY", 0.1, at_least(0))

    # channels of the 7×7 convolutions, and of X
    keys.add("MODEL.COST_EMBEDDING.HIDDEN_DIM", 256, POSITIVE)
    keys.add("MODEL.COST_EMBEDDING.DIM", 128, POSITIVE)


def _add_fusion_and_decoder(keys: Keys) -> None:
    """Add the keys of fusion, decoder and loss."""
    # off: X goes straight to GUD (Table V)
    keys.switch("MODEL.ESCF.ENABLED", True)
    keys.add("MODEL.ESCF.NUM_LAYERS", 4, POSITIVE)
    # which modules a layer has (Table VIII)
    keys.switch("MODEL.ESCF.SFM", True)
    keys.switch("MODEL.ESCF.CFM", True)
    # star MLP, or the plain two-layer MLP (Table IX)
    keys.switch("MODEL.ESCF.STAR", True)
    # ratios of SSR and CSR; 1 switches each off (Table X)
    keys.add("MODEL.ESCF.SSR_RATIO", 2, POSITIVE)
    keys.add("MODEL.ESCF.CSR_RATIO", 2, POSITIVE)
    keys.add("MODEL.ESCF.NUM_HEADS", 4, POSITIVE)
    # hidden width of the MLPs over the width of X
    keys.add("MODEL.ESCF.MLP_RATIO", 3.0, POSITIVE)
    # stochastic depth of layer i is DROP_PATH · i / NUM_LAYERS
    keys.add("MODEL.ESCF.DROP_PATH", 0.1, PROBABILITY)
    # channels of image and text guidance, and of the image guidance's 3×3 convolutions
    keys.add("MODEL.ESCF.GUIDANCE_DIM", 128, POSITIVE)
    keys.add("MODEL.ESCF.GUIDANCE_HIDDEN_DIM", 256, POSITIVE)

    # off: the head reads X itself (Table V)
    keys.switch("MODEL.GUD.ENABLED", True)
    # channels of the class maps at strides 16, 8 and 4; multiples of 8
    keys.add("MODEL.GUD.DIMS", [64, 32, 16], numbers(multiple_of(8), 3))
    # channels of the guidance from F3, F2, F1; 0 leaves a map out (Table XI: [0, 16, 8] is "without F3")
    keys.add("MODEL.GUD.GUIDANCE_DIMS", [32, 16, 8], numbers(at_least(0), 3))
    # odd size of the fusing convolutions, and whether gradients stop at the guidance (Table XI)
    keys.add("MODEL.GUD.KERNEL_SIZE", 3, ODD)
    keys.switch("MODEL.GUD.STOP_GRADIENT", True)

    # count ignored pixels as negatives of every class, as the published models were trained; else the loss is the mean
    # over the other pixels of the whole batch, however many processes and parts share it
    keys.switch("MODEL.LOSS.IGNORED_ARE_NEGATIVES", True)


def _add_data(keys: Keys) -> None:
    """Add the keys of pictures and data sets."""
    # S in evaluation and prediction (Table XIV); a multiple of 32
    keys.add("INPUT.SIZE", 640, multiple_of(32))
    # S in training, the side of the crop; a multiple of 32
    keys.add("INPUT.CROP_SIZE", 640, multiple_of(32))
    # shortest side before the crop (one is drawn), and the limit of the longest side
    keys.add("INPUT.MIN_SIZE_TRAIN", [640], numbers(POSITIVE))
    keys.add("INPUT.MAX_SIZE_TRAIN", 1333, POSITIVE)
    # shortest side before the picture is brought to S×S in evaluation; 0 leaves the picture as it is
    keys.add("INPUT.MIN_SIZE_TEST", 800, at_least(0))
    keys.add("INPUT.MAX_SIZE_TEST", 1333, POSITIVE)
    # SSD's colour jitter, and the probability of a horizontal flip
    keys.switch("INPUT.COLOR_AUG_SSD", True)
    keys.add("INPUT.FLIP_PROB", 0.5, SHARE)
    # redraw a crop in which one class covers more than this share of the labelled pixels; 1 is off
    keys.add("INPUT.SINGLE_CATEGORY_MAX_AREA", 1.0, POSITIVE_SHARE)

    # registered names; training takes one, evaluation any number
    keys.add("DATASETS.TRAIN", ["coco_stuff_train"], DATASET)
    keys.add(
        "DATASETS.TEST",
        [
            "ade20k_847_val",
            "pascal_context_459_val",
            "ade20k_150_val",
            "pascal_context_59_val",
            "pascal_voc_20_val",
        ],
        DATASETS,
    )
    # folder of the data sets; "" for $DETECTRON2_DATASETS, else ./datasets
    keys.add("DATASETS.ROOT", "", TEXT_OR_NONE)
    # data sets of your own, declared on the spot; see err_seg/data/catalog.py
    keys.add("DATASETS.CUSTOM", [], ENTRIES)

    # processes that read pictures, for each training process; does not change what is read
    keys.add("DATALOADER.NUM_WORKERS", 4, at_least(0))
    # in training, read the next pair in place of one that cannot be read, and list that in OUTPUT_DIR/damaged.txt
    keys.switch("DATALOADER.SKIP_DAMAGED", False)


def _add_training(keys: Keys) -> None:
    """Add the keys of optimization and what training writes."""
    # pictures of an iteration, over all processes and accumulation steps
    keys.add("SOLVER.IMS_PER_BATCH", 4, POSITIVE)
    # parts that a process computes its share of an iteration in, one after the other; saves memory
    keys.add("SOLVER.ACCUMULATION_STEPS", 1, POSITIVE)
    keys.add("SOLVER.MAX_ITER", 80000, POSITIVE)
    # AdamW; CLIP's parameters get BASE_LR · CLIP_MULTIPLIER
    keys.add("SOLVER.BASE_LR", 2e-4, at_least(0))
    keys.add("SOLVER.CLIP_MULTIPLIER", 0.01, at_least(0))
    keys.add("SOLVER.BETAS", [0.9, 0.999], numbers(PROBABILITY, 2))
    keys.add("SOLVER.EPS", 1e-8, POSITIVE)
    keys.add("SOLVER.WEIGHT_DECAY", 1e-4, at_least(0))
    keys.add("SOLVER.WEIGHT_DECAY_NORM", 0.0, at_least(0))
    # curve of the learning rate, detectron2's "WarmupCosineLR" or "WarmupPolyLR", to 0 at MAX_ITER
    keys.add("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", one_of("WarmupCosineLR", "WarmupPolyLR"))
    # of "WarmupPolyLR": its power, and the share of BASE_LR that it does not fall below
    keys.add("SOLVER.POLY_LR_POWER", 0.9, POSITIVE)
    keys.add("SOLVER.POLY_LR_CONSTANT_ENDING", 0.0, SHARE)
    # linear warm-up from BASE_LR · WARMUP_FACTOR
    keys.add("SOLVER.WARMUP_ITERS", 1000, at_least(0))
    keys.add("SOLVER.WARMUP_FACTOR", 0.001, SHARE)
    # clip gradients before each step: each number to ±CLIP_VALUE ("value"), or the norm of each parameter's gradient
    # ("norm") or of all together ("full_model") to CLIP_VALUE; NORM_TYPE is the p of the norm, .inf for the largest
    keys.switch("SOLVER.CLIP_GRADIENTS.ENABLED", False)
    keys.add("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value", one_of("value", "norm", "full_model"))
    keys.add("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0, POSITIVE)
    keys.add("SOLVER.CLIP_GRADIENTS.NORM_TYPE", 2.0, NORM)
    # keep an exponential moving average of the weights, which is what is evaluated and becomes model_final (checkpoints
    # hold the weights themselves as well); DECAY is the share of it that stays in an iteration
    keys.switch("SOLVER.EMA.ENABLED", False)
    keys.add("SOLVER.EMA.DECAY", 0.999, PROBABILITY)
    # "fp32", "fp16" (with loss scaling), "bf16", or "auto": on CUDA bf16 where it is computed natively (compute
    # capability 8.0 and above), else fp16; fp32 elsewhere
    keys.add("SOLVER.PRECISION", "auto", one_of(*PRECISIONS))
    # on CUDA, let training multiply fp32 numbers as TF32, with 10 bits of mantissa; evaluation and prediction never do
    keys.switch("SOLVER.TF32", False)
    # torch's deterministic algorithms, so that equal runs, and resumed ones, are equal bit by bit on CUDA too; slower
    keys.switch("SOLVER.DETERMINISTIC", False)
    # recompute the blocks of the CLIP towers and ESCF in the backward pass; saves memory, costs time
    keys.switch("SOLVER.ACTIVATION_CHECKPOINTING", False)
    # several processes: "ddp" (each holds everything) or "fsdp" (weights and optimizer state are shared out)
    keys.add("SOLVER.PARALLEL", "ddp", one_of("ddp", "fsdp"))
    # backend of torch.compile, such as "inductor"; "" is off
    keys.add("SOLVER.COMPILE", "", COMPILER)
    # iterations between checkpoints, and how many of them are kept
    keys.add("SOLVER.CHECKPOINT_PERIOD", 5000, POSITIVE)
    keys.add("SOLVER.CHECKPOINTS_KEPT", 2, POSITIVE)

    # iterations between lines of the log and of metrics.json; each line stands for the iterations since the last
    keys.add("LOG.PERIOD", 20, POSITIVE)
    # TensorBoard's event files, in OUTPUT_DIR/tensorboard
    keys.switch("LOG.TENSORBOARD", True)
    # project of Weights & Biases that the run is logged to; "" is off
    keys.add("LOG.WANDB_PROJECT", "", TEXT_OR_NONE)
    # iterations between pictures of what the network predicts, in OUTPUT_DIR/vis; 0 is off
    keys.add("VIS_PERIOD", 0, at_least(0))


def _add_evaluation(keys: Keys) -> None:
    """Add the keys of evaluation, seed and output."""
    # pictures that go through the network together
    keys.add("TEST.BATCH_SIZE", 1, POSITIVE)
    # as SOLVER.PRECISION
    keys.add("TEST.PRECISION", "fp32", one_of(*PRECISIONS))
    # iterations of a training after which it is evaluated on DATASETS.TEST, as it is at the end; 0 is off
    keys.add("TEST.EVAL_PERIOD", 0, at_least(0))
    # the figure whose mean over the benchmarks is highest for model_best.safetensors
    keys.add("TEST.BEST_METRIC", "mIoU", one_of("mIoU", "mIoU-v0.6", "fwIoU", "mACC", "pACC"))
    # pictures of a process after which it writes down what is done, to go on from there after an interruption
    keys.add("TEST.PROGRESS_PERIOD", 50, POSITIVE)
    # boundary IoU besides the usual figures
    keys.switch("TEST.BOUNDARY_IOU", False)
    # files to write of every prediction, in OUTPUT_DIR/inference: any of "png" (label maps), "rle", "overlay"
    keys.add("TEST.SAVE", [], any_of("png", "rle", "overlay"))

    # average the probabilities over several views of a picture
    keys.switch("TEST.AUG.ENABLED", False)
    # sizes of the views over INPUT.SIZE, rounded to what the network takes; must hold 1, whose classes are kept
    keys.add("TEST.AUG.SCALES", [0.75, 1.0, 1.25], SCALES)
    # each view also mirrored
    keys.switch("TEST.AUG.FLIP", True)

    # seed of initialisation, data order and augmentation
    keys.add("SEED", 0, at_least(0))
    keys.add("OUTPUT_DIR", "./output", FOLDER)


KEYS = Keys()
_add_clip_and_classes(KEYS)
_add_fusion_and_decoder(KEYS)
_add_data(KEYS)
_add_training(KEYS)
_add_evaluation(KEYS)
