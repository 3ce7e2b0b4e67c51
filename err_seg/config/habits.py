"""Names that other libraries have for what is called differently here, and hints that say so."""

import functools
import inspect
from collections.abc import Callable, Container
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Habit(NamedTuple):
    """What takes the place of other libraries' names."""

    names: str  # keywords elsewhere; as options, save_dir is --save-dir
    python: str  # what to use in Python
    option: str = ""  # what to use on the command line, the option first
    key: str = ""  # the configuration key, for commands that have no such option and take KEY VALUE pairs


_HABITS = (
    _Habit("source image img input inputs", "the first argument, images", "images without an option: photo.jpg"),
    _Habit(
        "classes class_names names labels text texts prompt prompts text_prompt text_prompts candidate_labels queries",
        'vocabulary=["cat", "dog"]',
        '--classes "cat, dog"',
    ),
    _Habit(
        "conf confidence threshold conf_threshold score_threshold box_threshold text_threshold",
        "the result's scores, each pixel's probability: out.scores >= 0.3",
        "--background 0.3 (less probable pixels get no class)",
    ),
    _Habit(
        "imgsz img_size image_size input_size resolution",
        "tile= for large images, or size= for the result; the network's own input size is INPUT.SIZE",
        "--tile for large images",
        "INPUT.SIZE",
    ),
    _Habit("stream", "predict_stream(images, vocabulary)"),
    _Habit("save save_dir save_path project output_dir", 'out.save("photo.png")', "--output DIR", "OUTPUT_DIR"),
    _Habit("show", "out.show()", "--format overlay"),
    _Habit("verbose", "progress=True"),
    _Habit("max_det top_k topk", "num_kept=", "--num-kept K"),
    _Habit("batch bs", "batch_size=", "--batch-size N", "SOLVER.IMS_PER_BATCH"),
    _Habit("vid_stride", "frames of your own choice as images", "--every N"),
    _Habit("device device_map", 'err_seg.load(..., device="cuda")', "--device cuda", "MODEL.DEVICE"),
    _Habit("half fp16 bf16 amp dtype torch_dtype", 'err_seg.load(..., precision="fp16")', "--precision fp16"),
    _Habit(
        "weights checkpoint ckpt ckpt_path model_path model_name pretrained",
        'the first argument of err_seg.load("model_final.safetensors")',
        "--weights FILE",
        "MODEL.WEIGHTS",
    ),
)
HABITS = {name: habit for habit in _HABITS for name in habit.names.split()}


def explaining_habits(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer other libraries' keywords with a ``TypeError`` that names its own."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def explaining(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name in HABITS and name not in known:
                raise TypeError(f"{function.__name__}() has no {name!r}; use {HABITS[name].python}")
        return function(*args, **options)

    return explaining


def option_hint(option: str, known: Container[str], takes_pairs: bool) -> str:
    """Say what a command has instead of another program's option, such as ``--conf``; "" if it is not in the table.

    Of the command, ``known`` are its options, and ``takes_pairs`` is whether it takes ``KEY VALUE`` pairs.
    """
    habit = HABITS.get(option.removeprefix("--").replace("-", "_"))
    if habit is None or option in known or not option.startswith("--"):
        return ""
    if habit.option and (not habit.option.startswith("--") or habit.option.split()[0] in known):
        return habit.option
    return f"{habit.key} VALUE, at the end" if habit.key and takes_pairs else ""
