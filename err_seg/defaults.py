"""The tree of configuration keys: each with its meaning and its default."""

from fvcore.common.config import CfgNode

from err_seg.prompts import DEFAULT_TEMPLATE


def default_cfg() -> CfgNode:
    """Return the tree of defaults: the base network of the paper and its training on COCO-Stuff."""
    cfg = CfgNode()
    _add_clip_and_classes(cfg)
    _add_fusion_and_decoder(cfg)
    _add_data(cfg)
    _add_training(cfg)
    _add_evaluation(cfg)
    return cfg


def _add_clip_and_classes(cfg: CfgNode) -> None:
    """Add the keys of CLIP, prompts, cost maps and the choice of classes."""
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
    # a model of open_clip (a ConvNeXt, or a ViT for Table XII), a JSON file in open_clip's format, "mini" or "mini_vit"
    cfg.MODEL.CLIP.NAME = "convnext_base_w_320"
    # CLIP weights: a tag of open_clip, a local file, "mini" or "mini_vit" for the package's own, or "" for random ones
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


def _add_fusion_and_decoder(cfg: CfgNode) -> None:
    """Add the keys of fusion, decoder and loss."""
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


def _add_data(cfg: CfgNode) -> None:
    """Add the keys of pictures and data sets."""
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


def _add_training(cfg: CfgNode) -> None:
    """Add the keys of optimization and what training writes."""
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


def _add_evaluation(cfg: CfgNode) -> None:
    """Add the keys of evaluation, seed and output."""
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
