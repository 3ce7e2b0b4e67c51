"""The tree of configuration keys: each with its meaning, its default and the range of its values."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

from fvcore.common.config import CfgNode

from err_seg.config.constants import DEFAULT_TEMPLATE, PRECISIONS, RECOMPUTED
from err_seg.config.constraints import (
    BOOLEAN,
    COMPILER,
    DATASET_NAMES,
    ENTRIES,
    FOLDER,
    MODE_OR_COMPILER,
    NORM,
    ODD,
    ONE_DATASET,
    POSITIVE,
    POSITIVE_SHARE,
    PROBABILITY,
    PROMPTS,
    SCALES,
    SHARE,
    SOME_TEXT,
    TEXT_OR_NONE,
    Range,
    any_of,
    at_least,
    multiple_of,
    numbers,
    one_of,
)

TUNINGS = ("none", "weight", "full")

T = TypeVar("T")


class Key(NamedTuple):
    """What is declared of a key: values are of the default's type, and in the range."""

    default: Any
    range: Range


def key(default: T, range_: Range = BOOLEAN) -> T:
    """Declare a key of :class:`Config`; for a type checker it is a value of the default's type."""
    return cast(T, Key(default, range_))


class Config:
    """The base network of the paper and its training on COCO-Stuff.

    A configuration is a ``CfgNode`` of fvcore with these keys (:func:`default_cfg`). This class declares them, and is
    the type that code names, so that type checkers refuse a key that does not exist. It has no instances.
    """

    clone: Callable[[], "Config"]
    dump: Callable[[], str]
    freeze: Callable[[], None]
    defrost: Callable[[], None]
    items: Callable[[], Iterable[tuple[str, Any]]]

    class MODEL:
        """The network."""

        META_ARCHITECTURE = key("ERRSeg", SOME_TEXT)
        # "auto" (CUDA, else MPS, else the CPU), or a torch device such as "cuda:1"
        DEVICE = key("auto", SOME_TEXT)
        # weights of the whole network to start from: our own or a released checkpoint; "" for none
        WEIGHTS = key("", TEXT_OR_NONE)
        # statistics of the input, RGB in 0..255 (ImageNet's, also for CLIP)
        PIXEL_MEAN = key([123.675, 116.280, 103.530], numbers(at_least(0), 3))
        PIXEL_STD = key([58.395, 57.120, 57.375], numbers(POSITIVE, 3))

        class CLIP:
            """The two towers."""

            # a model of open_clip (a ConvNeXt, a FastViT such as MobileCLIP2's, or a ViT for Table XII), a JSON file in
            # open_clip's format, "mini", "mini_vit" or "mini_fastvit"
            NAME = key("convnext_base_w_320", SOME_TEXT)
            # CLIP weights: a tag of open_clip, a local file, the names "mini" and its like for the package's own, or ""
            # for random ones
            PRETRAINED = key("", TEXT_OR_NONE)
            # stochastic depth of a ConvNeXt or FastViT, and dropout in a ConvNeXt's head, in training
            DROP_PATH = key(0.0, PROBABILITY)
            HEAD_DROPOUT = key(0.0, PROBABILITY)
            # what trains in each tower: "none", "weight" (the paper's choice of weights) or "full" (Table II)
            IMAGE_TUNING = key("weight", one_of(*TUNINGS))
            TEXT_TUNING = key("weight", one_of(*TUNINGS))

        class TEXT:
            """From class names to text embeddings."""

            # prompts; {} is the class name; the embeddings of several are averaged
            TEMPLATES = key([DEFAULT_TEMPLATE], PROMPTS)
            # of a name like "bag, handbag": the "first" synonym, or the "average" of all
            SYNONYMS = key("first", one_of("first", "average"))
            # folder of cached text embeddings; "" for $ERR_SEG_CACHE or ~/.cache/err_seg, "none" for no cache on disk
            CACHE_DIR = key("", TEXT_OR_NONE)

        class HSM:
            """Hierarchical cost maps."""

            # hierarchical cost maps of strides 16 and 32; off: stride 32 alone (Table V)
            ENABLED = key(True)
            # which map trains the stage-4 blocks that both share: "both", "E16" or "E32" (Table VI)
            STAGE4_GRADIENT = key("both", one_of("both", "E16", "E32"))
            # train the branch's norm and convolution, which the released models leave frozen
            TRAIN_CONV = key(False)

        class CRM:
            """The choice of classes."""

            # off: all classes are kept, in training and evaluation (Table V)
            ENABLED = key(True)
            # K in evaluation (Table XIII); 0: the benchmark's own, and 32 where there is no benchmark
            NUM_KEPT = key(0, at_least(0))
            # K in training (Fig. 7)
            NUM_KEPT_TRAIN = key(32, POSITIVE)
            # the score a class needs to be kept in evaluation and in training, as a share of the pixels of both cost
            # maps: each image then keeps as many classes as it needs, K at most; 0: always K, as published
            MIN_SCORE = key(0.0, SHARE)
            MIN_SCORE_TRAIN = key(0.0, SHARE)
            # how many of the best classes are kept whatever their score
            MIN_KEPT = key(1, POSITIVE)
            # R, how many ranks of a pixel score (Table VII)
            NUM_RANKS = key(3, POSITIVE)
            # b of the rank weights 1, b, b², ... (Fig. 6)
            RANK_DECAY = key(0.1, at_least(0))

        class COST_EMBEDDING:
            """From kept cost maps to X."""

            # channels of the 7×7 convolutions, and of X
            HIDDEN_DIM = key(256, POSITIVE)
            DIM = key(128, POSITIVE)

        class ESCF:
            """Fusion."""

            # off: X goes straight to GUD (Table V)
            ENABLED = key(True)
            NUM_LAYERS = key(4, POSITIVE)
            # which modules a layer has (Table VIII)
            SFM = key(True)
            CFM = key(True)
            # star MLP, or the plain two-layer MLP (Table IX)
            STAR = key(True)
            # ratios of SSR and CSR; 1 switches each off (Table X)
            SSR_RATIO = key(2, POSITIVE)
            CSR_RATIO = key(2, POSITIVE)
            NUM_HEADS = key(4, POSITIVE)
            # hidden width of the MLPs over the width of X
            MLP_RATIO = key(3.0, POSITIVE)
            # stochastic depth of layer i is DROP_PATH · i / NUM_LAYERS
            DROP_PATH = key(0.1, PROBABILITY)
            # channels of image and text guidance, and of the image guidance's 3×3 convolutions
            GUIDANCE_DIM = key(128, POSITIVE)
            GUIDANCE_HIDDEN_DIM = key(256, POSITIVE)

        class GUD:
            """Decoder."""

            # off: the head reads X itself (Table V)
            ENABLED = key(True)
            # channels of the class maps at strides 16, 8 and 4; multiples of 8
            DIMS = key([64, 32, 16], numbers(multiple_of(8), 3))
            # channels of the guidance from F3, F2, F1; 0 leaves a map out (Table XI: [0, 16, 8] is "without F3")
            GUIDANCE_DIMS = key([32, 16, 8], numbers(at_least(0), 3))
            # odd size of the fusing convolutions, and whether gradients stop at the guidance (Table XI)
            KERNEL_SIZE = key(3, ODD)
            STOP_GRADIENT = key(True)

        class LOSS:
            """Loss."""

            # count ignored pixels as negatives of every class, as the published models were trained; else the loss is
            # the mean over the other pixels of the whole batch, however many processes and parts share it
            IGNORED_ARE_NEGATIVES = key(True)

        class DISTILL:
            """Learning from a trained network, the teacher, besides the labels."""

            # the teacher: a file of weights that holds its configuration, as training writes it, or a name that
            # err_seg.load knows; "" for none
            WEIGHTS = key("", TEXT_OR_NONE)
            # what its loss counts beside that of the labels
            WEIGHT = key(1.0, POSITIVE)

    class INPUT:
        """How images are resized, cropped and augmented."""

        # S in evaluation and prediction (Table XIV); a multiple of 32
        SIZE = key(640, multiple_of(32))
        # S in training, the side of the crop; a multiple of 32
        CROP_SIZE = key(640, multiple_of(32))
        # shortest side before the crop (one is drawn), and the limit of the longest side
        MIN_SIZE_TRAIN = key([640], numbers(POSITIVE))
        MAX_SIZE_TRAIN = key(1333, POSITIVE)
        # shortest side before the image is brought to S×S in evaluation; 0 leaves the image as it is
        MIN_SIZE_TEST = key(800, at_least(0))
        MAX_SIZE_TEST = key(1333, POSITIVE)
        # SSD's colour jitter, and the probability of a horizontal flip
        COLOR_AUG_SSD = key(True)
        FLIP_PROB = key(0.5, SHARE)
        # redraw a crop in which one class covers more than this share of the labelled pixels; 1 is off
        SINGLE_CATEGORY_MAX_AREA = key(1.0, POSITIVE_SHARE)

    class DATASETS:
        """What is read."""

        # registered names; training takes one, evaluation any number
        TRAIN = key(["coco_stuff_train"], ONE_DATASET)
        TEST = key(
            [
                "ade20k_847_val",
                "pascal_context_459_val",
                "ade20k_150_val",
                "pascal_context_59_val",
                "pascal_voc_20_val",
            ],
            DATASET_NAMES,
        )
        # folder of the data sets; "" for $DETECTRON2_DATASETS, else ./datasets
        ROOT = key("", TEXT_OR_NONE)
        # data sets of your own, declared on the spot; see err_seg/data/catalog.py
        CUSTOM: list[dict[str, Any]] = key([], ENTRIES)

    class DATALOADER:
        """How it is read."""

        # processes that read images, for each training process; does not change what is read
        NUM_WORKERS = key(4, at_least(0))
        # in training, read the next pair in place of one that cannot be read, and list that in OUTPUT_DIR/damaged.txt
        SKIP_DAMAGED = key(False)

    class SOLVER:
        """Optimization."""

        # images of an iteration, over all processes and accumulation steps
        IMS_PER_BATCH = key(4, POSITIVE)
        # parts that a process computes its share of an iteration in, one after the other; saves memory
        ACCUMULATION_STEPS = key(1, POSITIVE)
        MAX_ITER = key(80000, POSITIVE)
        # AdamW; CLIP's parameters get BASE_LR · CLIP_MULTIPLIER
        BASE_LR = key(2e-4, at_least(0))
        CLIP_MULTIPLIER = key(0.01, at_least(0))
        BETAS = key([0.9, 0.999], numbers(PROBABILITY, 2))
        EPS = key(1e-8, POSITIVE)
        WEIGHT_DECAY = key(1e-4, at_least(0))
        WEIGHT_DECAY_NORM = key(0.0, at_least(0))
        # curve of the learning rate, detectron2's "WarmupCosineLR" or "WarmupPolyLR", to 0 at MAX_ITER
        LR_SCHEDULER_NAME = key("WarmupCosineLR", one_of("WarmupCosineLR", "WarmupPolyLR"))
        # of "WarmupPolyLR": its power, and the share of BASE_LR that it does not fall below
        POLY_LR_POWER = key(0.9, POSITIVE)
        POLY_LR_CONSTANT_ENDING = key(0.0, SHARE)
        # linear warm-up from BASE_LR · WARMUP_FACTOR
        WARMUP_ITERS = key(1000, at_least(0))
        WARMUP_FACTOR = key(0.001, SHARE)

        class CLIP_GRADIENTS:
            """Limits on gradients."""

            # clip gradients before each step: each number to ±CLIP_VALUE ("value"), or the norm of each parameter's
            # gradient ("norm") or of all together ("full_model") to CLIP_VALUE; NORM_TYPE is the p of the norm, .inf
            # for the largest
            ENABLED = key(False)
            CLIP_TYPE = key("value", one_of("value", "norm", "full_model"))
            CLIP_VALUE = key(1.0, POSITIVE)
            NORM_TYPE = key(2.0, NORM)

        class EMA:
            """Moving average of the weights."""

            # keep an exponential moving average of the weights, which is what is evaluated and becomes model_final
            # (checkpoints hold the weights themselves as well); DECAY is the share of it that stays in an iteration
            ENABLED = key(False)
            DECAY = key(0.999, PROBABILITY)

        # "fp32", "fp16" (with loss scaling), "bf16", or "auto": on CUDA bf16 where it is computed natively (compute
        # capability 8.0 and above), else fp16; fp32 elsewhere
        PRECISION = key("auto", one_of(*PRECISIONS))
        # on CUDA, let training multiply fp32 numbers as TF32, with 10 bits of mantissa; evaluation and prediction never
        # do
        TF32 = key(False)
        # torch's deterministic algorithms, so that equal runs, and resumed ones, are equal bit by bit on CUDA too;
        # slower
        DETERMINISTIC = key(False)
        # recompute the blocks of the CLIP towers and ESCF in the backward pass, which saves memory and costs time: all
        # in them ("blocks"), or what is cheap ("elementwise": not products, convolutions and attention)
        ACTIVATION_CHECKPOINTING = key(False)
        RECOMPUTED = key("blocks", one_of(*RECOMPUTED))
        # several processes: "ddp" (each holds everything) or "fsdp" (weights and optimizer state are shared out)
        PARALLEL = key("ddp", one_of("ddp", "fsdp"))
        # backend of torch.compile, such as "inductor"; "" is off
        COMPILE = key("", COMPILER)
        # iterations between checkpoints, and how many of them are kept
        CHECKPOINT_PERIOD = key(5000, POSITIVE)
        CHECKPOINTS_KEPT = key(2, POSITIVE)

    class LOG:
        """What training writes."""

        # iterations between lines of the log and of metrics.json; each line stands for the iterations since the last
        PERIOD = key(20, POSITIVE)
        # TensorBoard's event files, in OUTPUT_DIR/tensorboard
        TENSORBOARD = key(True)
        # project of Weights & Biases that the run is logged to; "" is off
        WANDB_PROJECT = key("", TEXT_OR_NONE)

    # iterations between images of what the network predicts, in OUTPUT_DIR/vis; 0 is off
    VIS_PERIOD = key(0, at_least(0))

    class TEST:
        """Evaluation."""

        # images that go through the network together
        BATCH_SIZE = key(1, POSITIVE)
        # as SOLVER.PRECISION
        PRECISION = key("fp32", one_of(*PRECISIONS))
        # compile the network that only predicts or evaluates; training has SOLVER.COMPILE. A mode of torch.compile:
        # "default", "reduce-overhead" (with CUDA graphs) or "max-autotune"; or one of its backends; "" is off, which
        # showing attention needs
        COMPILE = key("", MODE_OR_COMPILER)
        # iterations of a training after which it is evaluated on DATASETS.TEST, as it is at the end; 0 is off
        EVAL_PERIOD = key(0, at_least(0))
        # the metric whose mean over the benchmarks chooses model_best.safetensors
        BEST_METRIC = key("mIoU", one_of("mIoU", "mIoU-v0.6", "fwIoU", "mACC", "pACC"))
        # images of a process after which it writes down what is done, to go on from there after an interruption
        PROGRESS_PERIOD = key(50, POSITIVE)
        # boundary IoU besides the usual metrics
        BOUNDARY_IOU = key(False)
        # files to write of every prediction, in OUTPUT_DIR/inference: any of "png" (label maps), "rle", "overlay"
        SAVE: list[str] = key([], any_of("png", "rle", "overlay"))

        class AUG:
            """Test-time augmentation."""

            # average the probabilities over several views of an image
            ENABLED = key(False)
            # sizes of the views over INPUT.SIZE, rounded to what the network takes; must hold 1, whose classes are kept
            SCALES = key([0.75, 1.0, 1.25], SCALES)
            # each view also mirrored
            FLIP = key(True)

    # seed of initialisation, data order and augmentation
    SEED = key(0, at_least(0))
    OUTPUT_DIR = key("./output", FOLDER)


def _declared(section: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    for name, value in vars(section).items():
        if isinstance(value, Key):
            yield prefix + name, value
        elif isinstance(value, type):
            yield from _declared(value, f"{prefix}{name}.")


# by dotted name
KEYS = dict(_declared(Config))


def default_cfg() -> CfgNode:
    """Return the tree of defaults, a :class:`Config`."""
    cfg = CfgNode()
    for name, declared in KEYS.items():
        *path, leaf = name.split(".")
        node = cfg
        for part in path:
            node = node.setdefault(part, CfgNode())
        node[leaf] = copy.copy(declared.default)
    return cfg
