"""The configuration: every key with its meaning and default, loading, overriding and validation.

The tree is a ``CfgNode`` of fvcore, the class that detectron2's own node derives from. YAML files are short deltas on
these defaults (``_BASE_`` names the file they start from); ``KEY VALUE`` pairs come last.
"""

import contextlib
import difflib
from ast import literal_eval
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode

from err_seg.prompts import DEFAULT_TEMPLATE


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was expected and what was found."""


def default_cfg() -> CfgNode:
    """Return the tree of defaults: the base network of the paper and its training on COCO-Stuff."""
    cfg = CfgNode()

    cfg.MODEL = CfgNode()
    cfg.MODEL.META_ARCHITECTURE = "ERRSeg"
    # "auto" (CUDA, else MPS, else the CPU), or a torch device such as "cuda:1"
    cfg.MODEL.DEVICE = "auto"
    # weights of the whole network to start from: our own or a released checkpoint; "" for none
    cfg.MODEL.WEIGHTS = ""
    # statistics of the input, RGB in 0..255 (ImageNet's, also for CLIP)
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.280, 103.530]
    cfg.MODEL.PIXEL_STD = [58.395, 57.120, 57.375]

    cfg.MODEL.CLIP = CfgNode()
    # a model of open_clip (a ConvNeXt, or a ViT for Table XII), or a JSON file in open_clip's format
    cfg.MODEL.CLIP.NAME = "convnext_base_w_320"
    # CLIP weights: a tag of open_clip, a local file, or "" for random ones
    cfg.MODEL.CLIP.PRETRAINED = ""
    # stochastic depth of the ConvNeXt trunk and dropout in its MLP head, in training
    cfg.MODEL.CLIP.DROP_PATH = 0.0
    cfg.MODEL.CLIP.HEAD_DROPOUT = 0.0
    # what trains in each tower: "none", "weight" (the paper's choice of weights) or "full" (Table II)
    cfg.MODEL.CLIP.IMAGE_TUNING = "weight"
    cfg.MODEL.CLIP.TEXT_TUNING = "weight"

    cfg.MODEL.TEXT = CfgNode()
    # prompts; {} is the class name; the embeddings of several are averaged
    cfg.MODEL.TEXT.TEMPLATES = [DEFAULT_TEMPLATE]
    # of a name like "bag, handbag": the "first" synonym, or the "average" of all
    cfg.MODEL.TEXT.SYNONYMS = "first"
    # folder of cached text embeddings; "" for $ERR_SEG_CACHE or ~/.cache/err_seg, "none" for no cache on disk
    cfg.MODEL.TEXT.CACHE_DIR = ""

    cfg.MODEL.HSM = CfgNode()
    # hierarchical cost maps of strides 16 and 32; off: stride 32 alone (Table V)
    cfg.MODEL.HSM.ENABLED = True
    # which map trains the stage-4 blocks that both share: "both", "E16" or "E32" (Table VI)
    cfg.MODEL.HSM.STAGE4_GRADIENT = "both"
    # train the branch's norm and convolution, which the released models leave frozen
    cfg.MODEL.HSM.TRAIN_CONV = False

    cfg.MODEL.CRM = CfgNode()
    # off: all classes are kept, in training and evaluation (Table V)
    cfg.MODEL.CRM.ENABLED = True
    # K in evaluation (Table XIII); 0: the benchmark's own, and 32 where there is no benchmark
    cfg.MODEL.CRM.NUM_KEPT = 0
    # K in training (Fig. 7)
    cfg.MODEL.CRM.NUM_KEPT_TRAIN = 32
    # R, how many ranks of a pixel score (Table VII)
    cfg.MODEL.CRM.NUM_RANKS = 3
    # b of the rank weights 1, b, b², ... (Fig. 6)
    cfg.MODEL.CRM.RANK_DECAY = 0.1

    cfg.MODEL.COST_EMBEDDING = CfgNode()
    # channels of the 7×7 convolutions, and of X
    cfg.MODEL.COST_EMBEDDING.HIDDEN_DIM = 256
    cfg.MODEL.COST_EMBEDDING.DIM = 128

    cfg.MODEL.ESCF = CfgNode()
    # off: X goes straight to GUD (Table V)
    cfg.MODEL.ESCF.ENABLED = True
    cfg.MODEL.ESCF.NUM_LAYERS = 4
    # which modules a layer has (Table VIII)
    cfg.MODEL.ESCF.SFM = True
    cfg.MODEL.ESCF.CFM = True
    # star MLP, or the plain two-layer MLP (Table IX)
    cfg.MODEL.ESCF.STAR = True
    # ratios of SSR and CSR; 1 switches each off (Table X)
    cfg.MODEL.ESCF.SSR_RATIO = 2
    cfg.MODEL.ESCF.CSR_RATIO = 2
    cfg.MODEL.ESCF.NUM_HEADS = 4
    # hidden width of the MLPs over the width of X
    cfg.MODEL.ESCF.MLP_RATIO = 3.0
    # stochastic depth of layer i is DROP_PATH · i / NUM_LAYERS
    cfg.MODEL.ESCF.DROP_PATH = 0.1
    # channels of image and text guidance, and of the image guidance's 3×3 convolutions
    cfg.MODEL.ESCF.GUIDANCE_DIM = 128
    cfg.MODEL.ESCF.GUIDANCE_HIDDEN_DIM = 256

    cfg.MODEL.GUD = CfgNode()
    # off: the head reads X itself (Table V)
    cfg.MODEL.GUD.ENABLED = True
    # channels of the class maps at strides 16, 8 and 4; multiples of 8
    cfg.MODEL.GUD.DIMS = [64, 32, 16]
    # channels of the guidance from F3, F2, F1; 0 leaves a map out (Table XI: [0, 16, 8] is "without F3")
    cfg.MODEL.GUD.GUIDANCE_DIMS = [32, 16, 8]
    # odd size of the fusing convolutions, and whether gradients stop at the guidance (Table XI)
    cfg.MODEL.GUD.KERNEL_SIZE = 3
    cfg.MODEL.GUD.STOP_GRADIENT = True

    cfg.MODEL.LOSS = CfgNode()
    # count ignored pixels as negatives of every class, as the published models were trained
    cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES = True

    cfg.INPUT = CfgNode()
    # S in evaluation and prediction (Table XIV); a multiple of 32
    cfg.INPUT.SIZE = 640
    # S in training, the side of the crop; a multiple of 32
    cfg.INPUT.CROP_SIZE = 640
    # shortest side before the crop (one is drawn), and the limit of the longest side
    cfg.INPUT.MIN_SIZE_TRAIN = [640]
    cfg.INPUT.MAX_SIZE_TRAIN = 1333
    # shortest side before the picture is brought to S×S in evaluation; 0 leaves the picture as it is
    cfg.INPUT.MIN_SIZE_TEST = 800
    cfg.INPUT.MAX_SIZE_TEST = 1333
    # SSD's colour jitter, and the probability of a horizontal flip
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.FLIP_PROB = 0.5
    # redraw a crop in which one class covers more than this share of the labelled pixels; 1 is off
    cfg.INPUT.SINGLE_CATEGORY_MAX_AREA = 1.0

    cfg.DATASETS = CfgNode()
    # registered names; training takes one, evaluation any number
    cfg.DATASETS.TRAIN = ["coco_stuff_train"]
    cfg.DATASETS.TEST = [
        "ade20k_847_val",
        "pascal_context_459_val",
        "ade20k_150_val",
        "pascal_context_59_val",
        "pascal_voc_20_val",
    ]
    # folder of the data sets; "" for $DETECTRON2_DATASETS, else ./datasets
    cfg.DATASETS.ROOT = ""
    # data sets of your own, declared on the spot; see err_seg/data/catalog.py
    cfg.DATASETS.CUSTOM = []

    cfg.DATALOADER = CfgNode()
    # processes that read pictures, for each training process; does not change what is read
    cfg.DATALOADER.NUM_WORKERS = 4

    cfg.SOLVER = CfgNode()
    # pictures of an iteration, over all processes and accumulation steps
    cfg.SOLVER.IMS_PER_BATCH = 4
    # parts that a process computes its share of an iteration in, one after the other; saves memory
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    cfg.SOLVER.MAX_ITER = 80000
    # AdamW; CLIP's parameters get BASE_LR · CLIP_MULTIPLIER
    cfg.SOLVER.BASE_LR = 2e-4
    cfg.SOLVER.CLIP_MULTIPLIER = 0.01
    cfg.SOLVER.BETAS = [0.9, 0.999]
    cfg.SOLVER.EPS = 1e-8
    cfg.SOLVER.WEIGHT_DECAY = 1e-4
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    # linear warm-up from BASE_LR · WARMUP_FACTOR, then cosine to 0 at MAX_ITER
    cfg.SOLVER.WARMUP_ITERS = 1000
    cfg.SOLVER.WARMUP_FACTOR = 0.001
    # "fp32", "fp16" (with loss scaling), "bf16", or "auto": fp16 on CUDA, fp32 elsewhere
    cfg.SOLVER.PRECISION = "auto"
    # recompute the blocks of the CLIP towers and ESCF in the backward pass; saves memory, costs time
    cfg.SOLVER.ACTIVATION_CHECKPOINTING = False
    # several processes: "ddp" (each holds everything) or "fsdp" (weights and optimizer state are shared out)
    cfg.SOLVER.PARALLEL = "ddp"
    # backend of torch.compile, such as "inductor"; "" is off
    cfg.SOLVER.COMPILE = ""
    # iterations between checkpoints, and how many of them are kept
    cfg.SOLVER.CHECKPOINT_PERIOD = 5000
    cfg.SOLVER.CHECKPOINTS_KEPT = 2

    cfg.LOG = CfgNode()
    # iterations between lines of the log and of metrics.json; each line stands for the iterations since the last
    cfg.LOG.PERIOD = 20
    # TensorBoard's event files, in OUTPUT_DIR/tensorboard
    cfg.LOG.TENSORBOARD = True
    # project of Weights & Biases that the run is logged to; "" is off
    cfg.LOG.WANDB_PROJECT = ""
    # iterations between pictures of what the network predicts, in OUTPUT_DIR/vis; 0 is off
    cfg.VIS_PERIOD = 0

    cfg.TEST = CfgNode()
    # pictures that go through the network together
    cfg.TEST.BATCH_SIZE = 1
    # as SOLVER.PRECISION
    cfg.TEST.PRECISION = "fp32"
    # pictures of a process after which it writes down what is done, to go on from there after an interruption
    cfg.TEST.PROGRESS_PERIOD = 50
    # boundary IoU besides the usual figures
    cfg.TEST.BOUNDARY_IOU = False
    # files to write of every prediction, in OUTPUT_DIR/inference: any of "png" (label maps), "rle", "overlay"
    cfg.TEST.SAVE = []

    cfg.TEST.AUG = CfgNode()
    # average the probabilities over several views of a picture
    cfg.TEST.AUG.ENABLED = False
    # sizes of the views over INPUT.SIZE, rounded to what the network takes; must hold 1, whose classes are kept
    cfg.TEST.AUG.SCALES = [0.75, 1.0, 1.25]
    # each view also mirrored
    cfg.TEST.AUG.FLIP = True

    # seed of initialisation, data order and augmentation
    cfg.SEED = 0
    cfg.OUTPUT_DIR = "./output"
    return cfg


def get_cfg(config_file: str | Path | None = None, overrides: Sequence[Any] = ()) -> CfgNode:
    """Load a configuration.

    Args:
        config_file: a YAML file, or ``None`` for the defaults.
        overrides: ``[key, value, key, value, ...]``; values are taken as they are, or parsed where they are text.

    Raises:
        ConfigError: an unreadable file, an unknown key (with the nearest known one), a value of the wrong type or out
            of range, or values that contradict each other.
    """
    cfg = default_cfg()
    if config_file is not None:
        for key, value in _leaves(_load_yaml(Path(config_file)), known=cfg):
            _set(cfg, key, value, str(config_file))
    if len(overrides) % 2:
        raise ConfigError(f"overrides are KEY VALUE pairs; {overrides[-1]!r} has no value")
    for key, value in zip(overrides[0::2], overrides[1::2], strict=True):
        _set(cfg, key, value, "override")
    validate(cfg)
    return cfg


def _load_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path()
        found = ", ".join(sorted(str(path) for path in folder.glob("*.yaml"))) or "no YAML file"
        raise ConfigError(f"no configuration file {file}; {folder}/ holds {found}")
    try:
        return CfgNode.load_yaml_with_base(str(file)) or {}
    except (yaml.YAMLError, AssertionError, OSError, TypeError) as error:
        raise ConfigError(f"{file} is not a usable configuration: {error}") from error


def _leaves(tree: dict[str, Any], known: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of each setting; a mapping counts as a setting where the defaults have none."""
    for name, value in tree.items():
        child = known.get(name) if isinstance(known, CfgNode) else None
        if isinstance(value, dict) and (isinstance(child, CfgNode) or child is None):
            yield from _leaves(value, child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> None:
    """Set one setting, converted to the type of its default."""
    *path, leaf = str(key).split(".")
    node = cfg
    for name in path:
        node = node.get(name) if isinstance(node, CfgNode) else None
    if not isinstance(node, CfgNode) or leaf not in node or isinstance(node[leaf], CfgNode):
        known = [name for name, _ in _leaves(cfg, known=cfg)]
        # the last part of a key is what people remember
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or [k for k in known if k.split(".")[-1] == leaf]
        hint = f"did you mean {near[0]}?" if near else "err_seg/config.py lists all keys"
        raise ConfigError(f"unknown key {key} ({source}); {hint}")
    node[leaf] = _converted(key, value, node[leaf], source)


def _converted(key: str, value: Any, default: Any, source: str) -> Any:
    if isinstance(value, str) and not isinstance(default, str):
        with contextlib.suppress(ValueError, SyntaxError):  # reported as a wrong type below
            value = literal_eval(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list) and isinstance(value, (list, tuple)):
        return list(value)
    if type(value) is not type(default):
        expected = type(default).__name__
        raise ConfigError(f"{key} ({source}) must be of type {expected} like {default!r}, not {value!r}")
    return value


def validate(cfg: CfgNode) -> None:
    """Refuse values out of range and settings that contradict each other, naming the key.

    Raises:
        ConfigError: the first thing found wrong.
    """

    def require(condition: bool, key: str, expected: str) -> None:
        if not condition:
            value: Any = cfg
            for name in key.split("."):
                value = value[name]
            raise ConfigError(f"{key} must be {expected}, not {value!r}")

    model, clip, escf, gud = cfg.MODEL, cfg.MODEL.CLIP, cfg.MODEL.ESCF, cfg.MODEL.GUD
    for key in ("INPUT.SIZE", "INPUT.CROP_SIZE"):
        size = cfg.INPUT[key.split(".")[1]]
        require(size > 0 and size % 32 == 0, key, "a positive multiple of 32")
        for ratio in ("SSR_RATIO", "CSR_RATIO"):
            require(escf[ratio] >= 1, f"MODEL.ESCF.{ratio}", "at least 1 (1 is off)")
            fits = (size // 16) % escf[ratio] == 0
            require(fits, f"MODEL.ESCF.{ratio}", f"a divisor of the grid's side {size // 16} ({key} / 16)")
    choices = {
        "MODEL.CLIP.IMAGE_TUNING": (clip.IMAGE_TUNING, ("none", "weight", "full")),
        "MODEL.CLIP.TEXT_TUNING": (clip.TEXT_TUNING, ("none", "weight", "full")),
        "MODEL.TEXT.SYNONYMS": (model.TEXT.SYNONYMS, ("first", "average")),
        "MODEL.HSM.STAGE4_GRADIENT": (model.HSM.STAGE4_GRADIENT, ("both", "E16", "E32")),
        "SOLVER.PRECISION": (cfg.SOLVER.PRECISION, ("auto", "fp32", "fp16", "bf16")),
        "SOLVER.PARALLEL": (cfg.SOLVER.PARALLEL, ("ddp", "fsdp")),
        "TEST.PRECISION": (cfg.TEST.PRECISION, ("auto", "fp32", "fp16", "bf16")),
    }
    for key, (value, allowed) in choices.items():
        require(value in allowed, key, "one of " + ", ".join(map(repr, allowed)))

    require(model.CRM.NUM_KEPT >= 0, "MODEL.CRM.NUM_KEPT", "at least 0 (0: the benchmark's own)")
    require(model.CRM.RANK_DECAY >= 0, "MODEL.CRM.RANK_DECAY", "at least 0")
    positive = {
        "MODEL.CRM.NUM_KEPT_TRAIN": model.CRM.NUM_KEPT_TRAIN,
        "MODEL.CRM.NUM_RANKS": model.CRM.NUM_RANKS,
        "MODEL.ESCF.NUM_LAYERS": escf.NUM_LAYERS,
        "MODEL.ESCF.NUM_HEADS": escf.NUM_HEADS,
        "SOLVER.IMS_PER_BATCH": cfg.SOLVER.IMS_PER_BATCH,
        "SOLVER.MAX_ITER": cfg.SOLVER.MAX_ITER,
        "SOLVER.ACCUMULATION_STEPS": cfg.SOLVER.ACCUMULATION_STEPS,
        "SOLVER.CHECKPOINT_PERIOD": cfg.SOLVER.CHECKPOINT_PERIOD,
        "SOLVER.CHECKPOINTS_KEPT": cfg.SOLVER.CHECKPOINTS_KEPT,
        "LOG.PERIOD": cfg.LOG.PERIOD,
        "TEST.BATCH_SIZE": cfg.TEST.BATCH_SIZE,
        "TEST.PROGRESS_PERIOD": cfg.TEST.PROGRESS_PERIOD,
    }
    for key, value in positive.items():
        require(value > 0, key, "positive")
    require(len(cfg.DATASETS.TRAIN) == 1, "DATASETS.TRAIN", "a list of one data set")
    require(cfg.SEED >= 0, "SEED", "at least 0")
    require(cfg.VIS_PERIOD >= 0, "VIS_PERIOD", "at least 0 (0 is off)")
    require(set(cfg.TEST.SAVE) <= {"png", "rle", "overlay"}, "TEST.SAVE", "a list of any of 'png', 'rle', 'overlay'")
    scales = cfg.TEST.AUG.SCALES
    is_scale = [isinstance(scale, (int, float)) and scale > 0 for scale in scales]
    require(all(is_scale) and 1 in scales, "TEST.AUG.SCALES", "a list of positive numbers that holds 1")

    off = "MODEL.ESCF.ENABLED False switches both off"
    require(escf.SFM or escf.CFM or not escf.ENABLED, "MODEL.ESCF.SFM", f"True where MODEL.ESCF.CFM is False ({off})")
    divides = model.COST_EMBEDDING.DIM % escf.NUM_HEADS == 0
    require(divides, "MODEL.ESCF.NUM_HEADS", f"a divisor of MODEL.COST_EMBEDDING.DIM = {model.COST_EMBEDDING.DIM}")

    require(len(gud.DIMS) == 3 and all(d > 0 and d % 8 == 0 for d in gud.DIMS), "MODEL.GUD.DIMS", "3 multiples of 8")
    three = len(gud.GUIDANCE_DIMS) == 3 and all(d >= 0 for d in gud.GUIDANCE_DIMS)
    require(three, "MODEL.GUD.GUIDANCE_DIMS", "3 numbers, each at least 0")
    require(gud.KERNEL_SIZE % 2 == 1, "MODEL.GUD.KERNEL_SIZE", "odd")
