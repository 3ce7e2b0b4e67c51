"""The names that options and the code behind them both know: light, so that a help text can list them."""

MODEL_NAMES = ("err-seg-b", "err-seg-l", "mini")
DEFAULT_MODEL = "err-seg-b"
SET_CLIP_WEIGHTS = "Set MODEL.CLIP.PRETRAINED (a tag of open_clip or a file) or MODEL.WEIGHTS."
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
ENGINES = ("auto", "plain", "detectron2")
BENCHMARKED = ("prediction", "evaluation", "training", "vocabulary")
"""What of the network is benchmarked, see :mod:`err_seg.lab.benchmarks.cases`."""
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")
"""Of ``torch.compile`` with inductor; all but the first record CUDA graphs."""
RECOMPUTED = ("blocks", "elementwise")
"""By activation checkpointing, see :func:`err_seg.engine.parallel.activation_checkpointing`."""
BY_NEED = "need"
"""Instead of a number K: as many classes as an image needs."""
FORMATS = (
    *("overlay", "labels", "geotiff", "masks", "json", "csv", "rle", "coco", "polygons"),
    *("html", "review", "video", "kept", "attention", "features"),
)
"""Of prediction's result files, see :mod:`err_seg.jobs.formats`."""
DEFAULT_TEMPLATE = "A photo of a {} in the scene"
"""The prompt of the published models; {} is the class name."""
PREPARED = ("coco-stuff", "ade150", "ade847", "pc59", "pc459", "voc20", "voc20b")
"""Data sets that can be prepared, see :mod:`err_seg.data.preparation.conversions`."""
ANNOTATION_FORMATS = ("labelme", "coco", "coco-panoptic", "yolo")
"""What ``err-seg prepare from`` reads, see :mod:`err_seg.data.preparation.annotations`."""
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""Of images in an evaluation, see :mod:`err_seg.data.corruptions`."""
