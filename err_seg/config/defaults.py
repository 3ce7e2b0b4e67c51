"""The configuration: every key with its meaning, its default and the range of its values.

The leaf sections come first; :class:`Config`, at the end, holds them all.
"""

from collections.abc import Iterator
from dataclasses import field, fields
from typing import Any

from err_seg.config import constraints as allowed
from err_seg.config.constants import CORRUPTIONS, DEFAULT_TEMPLATE, PRECISIONS, RECOMPUTED
from err_seg.config.section import Section, key
from err_seg.utils.signals import STOP_SIGNALS

TUNINGS = ("none", "weight", "full")
TEST_SETS = ["ade20k_847_val", "pascal_context_459_val", "ade20k_150_val", "pascal_context_59_val", "pascal_voc_20_val"]


class ClipConfig(Section):
    """``MODEL.CLIP``: the image and text towers."""

    # a model of open_clip (a ConvNeXt, a FastViT such as MobileCLIP2's, or a ViT for Table XII), a JSON file in
    # open_clip's format, "mini", "mini_vit" or "mini_fastvit"
    NAME: str = key("convnext_base_w_320", allowed.SOME_TEXT)
    # CLIP weights: a tag of open_clip, a local file, the names "mini" and its like for the package's own, or "" for
    # random ones
    PRETRAINED: str = ""
    # stochastic depth of a ConvNeXt or FastViT, and dropout in a ConvNeXt's head, in training
    DROP_PATH: float = key(0.0, allowed.PROBABILITY)
    HEAD_DROPOUT: float = key(0.0, allowed.PROBABILITY)
    # what reads the image tower at every pixel: "auto", or an encoder of your own (err_seg/plugins.py)
    ENCODER: str = key("auto", allowed.SOME_TEXT)
    # what trains in each tower: "none", "weight" (the paper's choice of weights) or "full" (Table II)
    IMAGE_TUNING: str = key("weight", allowed.one_of(*TUNINGS))
    TEXT_TUNING: str = key("weight", allowed.one_of(*TUNINGS))


class TextConfig(Section):
    """``MODEL.TEXT``: from class names to text embeddings."""

    # prompts; {} is the class name; the embeddings of several are averaged
    TEMPLATES: list[str] = key([DEFAULT_TEMPLATE], allowed.PROMPTS)
    # of a name like "bag, handbag": the "first" synonym, or the "average" of all
    SYNONYMS: str = key("first", allowed.one_of("first", "average"))
    # folder of cached text embeddings; "" for $ERR_SEG_CACHE or ~/.cache/err_seg, "none" for no cache on disk
    CACHE_DIR: str = ""


class HSMConfig(Section):
    """``MODEL.HSM``: hierarchical cost maps."""

    ENABLED: bool = True  # hierarchical cost maps of strides 16 and 32; off: stride 32 alone (Table V)
    # which map trains the stage-4 blocks that both share: "both", "E16" or "E32" (Table VI)
    STAGE4_GRADIENT: str = key("both", allowed.one_of("both", "E16", "E32"))
    # train the branch's norm and convolution, which the released models leave frozen
    TRAIN_CONV: bool = False


class CRMConfig(Section):
    """``MODEL.CRM``: the choice of classes."""

    ENABLED: bool = True  # off: all classes are kept, in training and evaluation (Table V)
    # K in evaluation (Table XIII); 0: the benchmark's own, and 32 where there is no benchmark
    NUM_KEPT: int = key(0, allowed.at_least(0))
    NUM_KEPT_TRAIN: int = key(32, allowed.POSITIVE)  # K in training (Fig. 7)
    # the score a class needs to be kept in evaluation and in training, as a share of the pixels of both cost maps: each
    # image then keeps as many classes as it needs, K at most; 0: always K, as published
    MIN_SCORE: float = key(0.0, allowed.SHARE)
    MIN_SCORE_TRAIN: float = key(0.0, allowed.SHARE)
    MIN_KEPT: int = key(1, allowed.POSITIVE)  # how many of the best classes are kept whatever their score
    NUM_RANKS: int = key(3, allowed.POSITIVE)  # R, how many ranks of a pixel score (Table VII)
    RANK_DECAY: float = key(0.1, allowed.at_least(0))  # b of the rank weights 1, b, b², ... (Fig. 6)


class CostEmbeddingConfig(Section):
    """``MODEL.COST_EMBEDDING``: from kept cost maps to X."""

    NAME: str = key("CostEmbedding", allowed.SOME_TEXT)  # or one of your own (err_seg/plugins.py)
    # channels of the 7×7 convolutions, and of X
    HIDDEN_DIM: int = key(256, allowed.POSITIVE)
    DIM: int = key(128, allowed.POSITIVE)


class ESCFConfig(Section):
    """``MODEL.ESCF``: the fusion of cost maps."""

    # off: X goes straight to GUD (Table V)
    ENABLED: bool = True
    NAME: str = key("ESCF", allowed.SOME_TEXT)  # or a fusion of your own (err_seg/plugins.py)
    NUM_LAYERS: int = key(4, allowed.POSITIVE)
    # which modules a layer has (Table VIII)
    SFM: bool = True
    CFM: bool = True
    STAR: bool = True  # star MLP, or the plain two-layer MLP (Table IX)
    # ratios of SSR and CSR; 1 switches each off (Table X)
    SSR_RATIO: int = key(2, allowed.POSITIVE)
    CSR_RATIO: int = key(2, allowed.POSITIVE)
    NUM_HEADS: int = key(4, allowed.POSITIVE)
    MLP_RATIO: float = key(3.0, allowed.POSITIVE)  # hidden width of the MLPs over the width of X
    DROP_PATH: float = key(0.1, allowed.PROBABILITY)  # stochastic depth of layer i is DROP_PATH · i / NUM_LAYERS
    # channels of image and text guidance, and of the image guidance's 3×3 convolutions
    GUIDANCE_DIM: int = key(128, allowed.POSITIVE)
    GUIDANCE_HIDDEN_DIM: int = key(256, allowed.POSITIVE)


class GUDConfig(Section):
    """``MODEL.GUD``: the decoder."""

    ENABLED: bool = True  # off: the head reads X itself (Table V)
    NAME: str = key("GUD", allowed.SOME_TEXT)  # or a decoder of your own (err_seg/plugins.py)
    # channels of the class maps at strides 16, 8 and 4
    DIMS: list[int] = key([64, 32, 16], allowed.numbers(allowed.multiple_of(8), 3))
    # channels of the guidance from F3, F2, F1; 0 leaves a map out (Table XI: [0, 16, 8] is "without F3")
    GUIDANCE_DIMS: list[int] = key([32, 16, 8], allowed.numbers(allowed.at_least(0), 3))
    # odd size of the fusing convolutions, and whether gradients stop at the guidance (Table XI)
    KERNEL_SIZE: int = key(3, allowed.Range("odd and positive", lambda value: value > 0 and value % 2 == 1))
    STOP_GRADIENT: bool = True


class LossConfig(Section):
    """``MODEL.LOSS``: the loss on the labels, and what is added to it."""

    # count ignored pixels as negatives of every class, as the published models were trained; else the loss is the mean
    # over the other pixels of the whole batch, however many processes and parts share it
    IGNORED_ARE_NEGATIVES: bool = True
    # further terms of the loss, by the names that packages of your own registered, and their weights (each 1 if empty)
    TERMS: list[str] = key([], allowed.NAMES)
    TERM_WEIGHTS: list[float] = key([], allowed.numbers(allowed.at_least(0), empty=True))


class DistillConfig(Section):
    """``MODEL.DISTILL``: learning from a trained network, the teacher, in addition to the labels."""

    # the teacher: a file of weights that holds its configuration, as training writes it, or a name that err_seg.load
    # takes; "" for none
    WEIGHTS: str = ""
    WEIGHT: float = key(1.0, allowed.POSITIVE)  # weight of its loss relative to that of the labels


class ModelConfig(Section):
    """``MODEL``: the network."""

    META_ARCHITECTURE: str = key("ERRSeg", allowed.SOME_TEXT)
    # packages of your own that are imported before anything is built, for the parts that they register
    IMPORTS: list[str] = key([], allowed.NAMES)
    # "auto" (CUDA, else MPS, else the CPU), or a torch device such as "cuda:1"
    DEVICE: str = key("auto", allowed.SOME_TEXT)
    # weights of the whole network to start from: our own or a released checkpoint; "" for none
    WEIGHTS: str = ""
    # statistics of the input, RGB in 0..255 (ImageNet's, also for CLIP)
    PIXEL_MEAN: list[float] = key([123.675, 116.280, 103.530], allowed.numbers(allowed.at_least(0), 3))
    PIXEL_STD: list[float] = key([58.395, 57.120, 57.375], allowed.numbers(allowed.POSITIVE, 3))
    CLIP: ClipConfig = field(default_factory=ClipConfig)
    TEXT: TextConfig = field(default_factory=TextConfig)
    HSM: HSMConfig = field(default_factory=HSMConfig)
    CRM: CRMConfig = field(default_factory=CRMConfig)
    COST_EMBEDDING: CostEmbeddingConfig = field(default_factory=CostEmbeddingConfig)
    ESCF: ESCFConfig = field(default_factory=ESCFConfig)
    GUD: GUDConfig = field(default_factory=GUDConfig)
    LOSS: LossConfig = field(default_factory=LossConfig)
    DISTILL: DistillConfig = field(default_factory=DistillConfig)


class InputConfig(Section):
    """``INPUT``: how images are resized, cropped and augmented."""

    SIZE: int = key(640, allowed.multiple_of(32))  # S in evaluation and prediction (Table XIV)
    CROP_SIZE: int = key(640, allowed.multiple_of(32))  # S in training, the side of the crop
    # shortest side before the crop (one is drawn), and the limit of the longest side
    MIN_SIZE_TRAIN: list[int] = key([640], allowed.numbers(allowed.POSITIVE))
    MAX_SIZE_TRAIN: int = key(1333, allowed.POSITIVE)
    # shortest side before the image is brought to S×S in evaluation; 0 leaves the image as it is
    MIN_SIZE_TEST: int = key(800, allowed.at_least(0))
    MAX_SIZE_TEST: int = key(1333, allowed.POSITIVE)
    # SSD's colour jitter, and the probability of a horizontal flip
    COLOR_AUG_SSD: bool = True
    FLIP_PROB: float = key(0.5, allowed.SHARE)
    # redraw a crop in which one class covers more than this share of the labelled pixels; 1 is off
    SINGLE_CATEGORY_MAX_AREA: float = key(1.0, allowed.Range("above 0 and at most 1", lambda value: 0 < value <= 1))
    # training transforms of your own, in this order after those above (err_seg/plugins.py)
    TRANSFORMS: list[str] = key([], allowed.NAMES)


class DatasetsConfig(Section):
    """``DATASETS``: the data sets."""

    # registered names; training takes one, evaluation any number. Evaluations during training (TEST.EVAL_PERIOD) choose
    # the best weights on VAL, so that TEST only reports; where VAL is empty, they do so on TEST
    TRAIN: list[str] = key(["coco_stuff_train"], allowed.ONE_DATASET)
    VAL: list[str] = key([], allowed.NAMES)
    TEST: list[str] = key(TEST_SETS, allowed.NAMES)
    ROOT: str = ""  # folder of the data sets; "" for $DETECTRON2_DATASETS, else ./datasets
    # data sets of your own, declared on the spot; see err_seg/data/catalog.py
    CUSTOM: list[dict[str, Any]] = key([], allowed.ENTRIES)


class DataLoaderConfig(Section):
    """``DATALOADER``: how data sets are read."""

    # processes that read images, for each training process; does not change what is read
    NUM_WORKERS: int = key(4, allowed.at_least(0))
    # in training, read the next pair in place of one that cannot be read, and list that in OUTPUT_DIR/damaged.txt
    SKIP_DAMAGED: bool = False


class ClipGradientsConfig(Section):
    """``SOLVER.CLIP_GRADIENTS``: limits on gradients."""

    # clip gradients before each step: each number to ±CLIP_VALUE ("value"), or the norm of each parameter's gradient
    # ("norm") or of all together ("full_model") to CLIP_VALUE; NORM_TYPE is the p of the norm, .inf for the largest
    ENABLED: bool = False
    CLIP_TYPE: str = key("value", allowed.one_of("value", "norm", "full_model"))
    CLIP_VALUE: float = key(1.0, allowed.POSITIVE)
    NORM_TYPE: float = key(2.0, allowed.Range("at least 1, or .inf", lambda value: value >= 1))


class EMAConfig(Section):
    """``SOLVER.EMA``: moving average of the weights."""

    # keep an exponential moving average of the weights, which is what is evaluated and becomes model_final (checkpoints
    # hold the weights themselves as well); DECAY is the share of it that stays in an iteration
    ENABLED: bool = False
    DECAY: float = key(0.999, allowed.PROBABILITY)


class SolverConfig(Section):
    """``SOLVER``: optimization."""

    # images of an iteration, over all processes and accumulation steps
    IMS_PER_BATCH: int = key(4, allowed.POSITIVE)
    # parts that a process computes its share of an iteration in, one after the other; saves memory
    ACCUMULATION_STEPS: int = key(1, allowed.POSITIVE)
    MAX_ITER: int = key(80000, allowed.POSITIVE)
    # AdamW; CLIP's parameters get BASE_LR · CLIP_MULTIPLIER
    BASE_LR: float = key(2e-4, allowed.at_least(0))
    CLIP_MULTIPLIER: float = key(0.01, allowed.at_least(0))
    BETAS: list[float] = key([0.9, 0.999], allowed.numbers(allowed.PROBABILITY, 2))
    EPS: float = key(1e-8, allowed.POSITIVE)
    WEIGHT_DECAY: float = key(1e-4, allowed.at_least(0))
    WEIGHT_DECAY_NORM: float = key(0.0, allowed.at_least(0))
    # curve of the learning rate, detectron2's "WarmupCosineLR" or "WarmupPolyLR", to 0 at MAX_ITER
    LR_SCHEDULER_NAME: str = key("WarmupCosineLR", allowed.one_of("WarmupCosineLR", "WarmupPolyLR"))
    # of "WarmupPolyLR": its power, and the share of BASE_LR that it does not fall below
    POLY_LR_POWER: float = key(0.9, allowed.POSITIVE)
    POLY_LR_CONSTANT_ENDING: float = key(0.0, allowed.SHARE)
    # linear warm-up from BASE_LR · WARMUP_FACTOR
    WARMUP_ITERS: int = key(1000, allowed.at_least(0))
    WARMUP_FACTOR: float = key(0.001, allowed.SHARE)
    CLIP_GRADIENTS: ClipGradientsConfig = field(default_factory=ClipGradientsConfig)
    EMA: EMAConfig = field(default_factory=EMAConfig)
    # "fp32", "fp16" (with loss scaling), "bf16", or "auto": on CUDA bf16 where it is computed natively (compute
    # capability 8.0 and above), else fp16; fp32 elsewhere
    PRECISION: str = key("auto", allowed.one_of(*PRECISIONS))
    # on CUDA, let training multiply fp32 numbers as TF32, with 10 bits of mantissa; evaluation and prediction never do
    TF32: bool = False
    # torch's deterministic algorithms, so that equal runs, and resumed ones, are equal bit by bit on CUDA too; slower
    DETERMINISTIC: bool = False
    # recompute the blocks of the CLIP towers and ESCF in the backward pass, which saves memory and costs time: all in
    # them ("blocks"), or what is cheap ("elementwise": not products, convolutions and attention)
    ACTIVATION_CHECKPOINTING: bool = False
    RECOMPUTED: str = key("blocks", allowed.one_of(*RECOMPUTED))
    # several processes: "ddp" (each holds everything) or "fsdp" (weights and optimizer state are shared out)
    PARALLEL: str = key("ddp", allowed.one_of("ddp", "fsdp"))
    COMPILE: str = key("", allowed.COMPILER)  # backend of torch.compile, such as "inductor"; "" is off
    # iterations between checkpoints, and how many of them are kept
    CHECKPOINT_PERIOD: int = key(5000, allowed.POSITIVE)
    CHECKPOINTS_KEPT: int = key(2, allowed.POSITIVE)
    # signals after which a checkpoint is saved and the run ends, with status 128 + the signal's number
    STOP_SIGNALS: list[str] = key([*STOP_SIGNALS], allowed.any_of(*STOP_SIGNALS))


class LogConfig(Section):
    """``LOG``: what training writes."""

    # iterations between lines of the log and of metrics.json; each line stands for the iterations since the last
    PERIOD: int = key(20, allowed.POSITIVE)
    TENSORBOARD: bool = True  # TensorBoard's event files, in OUTPUT_DIR/tensorboard
    WANDB_PROJECT: str = ""  # project of Weights & Biases that the run is logged to; "" is off


class TTAConfig(Section):
    """``TEST.AUG``: test-time augmentation."""

    ENABLED: bool = False  # average the probabilities over several views of an image
    # sizes of the views over INPUT.SIZE, rounded to what the network takes; must hold 1, whose classes are kept
    SCALES: list[float] = key([0.75, 1.0, 1.25], allowed.VIEW_SCALES)
    FLIP: bool = True  # each view also mirrored


class CorruptionConfig(Section):
    """``TEST.CORRUPTION``: how the images of an evaluation are corrupted."""

    NAME: str = key("", allowed.one_of("", *CORRUPTIONS))  # of ImageNet-C; "" is off
    SEVERITY: int = key(1, allowed.Range("in 1..5", lambda value: 1 <= value <= 5))  # 5 is the strongest


class EvaluationConfig(Section):
    """``TEST``: evaluation."""

    BATCH_SIZE: int = key(1, allowed.POSITIVE)  # images that go through the network together
    PRECISION: str = key("fp32", allowed.one_of(*PRECISIONS))  # as SOLVER.PRECISION
    # compile the network that only predicts or evaluates; training has SOLVER.COMPILE. A mode of torch.compile:
    # "default", "reduce-overhead" (with CUDA graphs) or "max-autotune"; or one of its backends; "" is off, which
    # showing attention needs
    COMPILE: str = key("", allowed.MODE_OR_COMPILER)
    # iterations of a training after which it is evaluated on DATASETS.VAL, as it is at the end; 0 is off
    EVAL_PERIOD: int = key(0, allowed.at_least(0))
    # the metric whose mean over the benchmarks chooses model_best.safetensors: any that their results have
    BEST_METRIC: str = key("mIoU", allowed.SOME_TEXT)
    METRICS: list[str] = key([], allowed.NAMES)  # metrics of your own, besides the usual ones (err_seg/plugins.py)
    # images of a process after which it writes down what is done, to go on from there after an interruption
    PROGRESS_PERIOD: int = key(50, allowed.POSITIVE)
    # so many images of each benchmark, spread evenly over the sorted names, the same ones every time; 0 is all
    NUM_IMAGES: int = key(0, allowed.at_least(0))
    # so many names that are no classes compete with a benchmark's own; what gets one is wrong (plain engine only)
    DISTRACTORS: int = key(0, allowed.at_least(0))
    # label larger images in overlapping windows of so many pixels a side, as predict's tile does, with TEST.BATCH_SIZE
    # windows together; INPUT.SIZE reduces nothing, 0 is off. With TILE or REFINE images keep their own size before they
    # are cut or brought to S×S: INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST have no effect
    TILE: int = key(0, allowed.at_least(0))
    REFINE: bool = False  # let borders follow the edges of the image, as predict's refine does
    BOUNDARY_IOU: bool = False  # boundary IoU besides the usual metrics
    # how far confidence can be trusted: ECE, Brier score and risk by coverage, of the calibrated confidence where the
    # model has one (err-seg calibrate), else of the network's scores
    CALIBRATION: bool = False
    # files to write of every prediction, in OUTPUT_DIR/inference: any of "png" (label maps), "rle", "overlay"
    SAVE: list[str] = key([], allowed.any_of("png", "rle", "overlay"))
    AUG: TTAConfig = field(default_factory=TTAConfig)
    CORRUPTION: CorruptionConfig = field(default_factory=CorruptionConfig)


class Config(Section):
    """The configuration; the defaults are the base network of the paper and its training on COCO-Stuff."""

    MODEL: ModelConfig = field(default_factory=ModelConfig)
    INPUT: InputConfig = field(default_factory=InputConfig)
    DATASETS: DatasetsConfig = field(default_factory=DatasetsConfig)
    DATALOADER: DataLoaderConfig = field(default_factory=DataLoaderConfig)
    SOLVER: SolverConfig = field(default_factory=SolverConfig)
    LOG: LogConfig = field(default_factory=LogConfig)
    # iterations between images of what the network predicts, in OUTPUT_DIR/vis; 0 is off
    VIS_PERIOD: int = key(0, allowed.at_least(0))
    TEST: EvaluationConfig = field(default_factory=EvaluationConfig)
    # settings of parts of your own, in sections that their packages register (err_seg/plugins.py)
    EXTRA: dict[str, Any] = key({}, allowed.SECTIONS)
    # seed of initialisation, data order and augmentation
    SEED: int = key(0, allowed.at_least(0))
    OUTPUT_DIR: str = key("./output", allowed.FOLDER)


def ranges_of(section: Section, prefix: str = "") -> Iterator[tuple[str, allowed.Range]]:
    """Yield the dotted key and range of each setting in a section."""
    for declared in fields(section):
        value = getattr(section, declared.name)
        if isinstance(value, Section):
            yield from ranges_of(value, f"{prefix}{declared.name}.")
        else:
            yield prefix + declared.name, declared.metadata.get("range", allowed.ANYTHING)


# the range of each key, by dotted name
KEYS = dict(ranges_of(Config()))
