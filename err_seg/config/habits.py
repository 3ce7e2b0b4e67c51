"""Names that other libraries have for what is called differently here, and hints that say so."""

import functools
import inspect
import re
from collections.abc import Callable, Container
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Habit(NamedTuple):
    """What to use instead: in Python; as an option, or as the configuration key in commands without that option."""

    python: str
    option: str = ""
    key: str = ""


_HABITS = {
    "source image img input": Habit("images, the first argument", "INPUT, without an option"),
    "classes class_names names labels text texts prompt prompts text_prompt text_prompts candidate_labels": Habit(
        'vocabulary=["cat", "dog"]', '--classes "cat, dog"'
    ),
    "conf confidence threshold conf_threshold score_threshold box_threshold text_threshold": Habit(
        "out.scores, the probabilities of the labels", "--background 0.3 (less probable pixels get no class)"
    ),
    "imgsz img_size image_size input_size": Habit(
        "tile= for large images, size= for the result's size", "--tile for large images", "INPUT.SIZE PIXELS"
    ),
    "stream": Habit("predict_stream(images, vocabulary)"),
    "verbose": Habit("progress=True"),
    "save save_dir save_path project output_dir": Habit('out.save("photo.png")', "--output DIR", "OUTPUT_DIR DIR"),
    "device device_map": Habit('err_seg.load(..., device="cuda")', "--device cuda", "MODEL.DEVICE cuda"),
    "half fp16 bf16 dtype torch_dtype": Habit('err_seg.load(..., precision="fp16")', "--precision fp16"),
}
HABITS = {name: habit for names, habit in _HABITS.items() for name in names.split()}
"""Keyword of other libraries, as an option "--" and "-" instead of "_", to what takes its place."""


def explaining_habits(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function answer other libraries' keywords with a ``TypeError`` that names its own."""
    foreign = HABITS.keys() - inspect.signature(function).parameters.keys()

    @functools.wraps(function)
    def explaining(*args: P.args, **options: P.kwargs) -> R:
        if given := [name for name in options if name in foreign]:
            raise TypeError(f"{function.__name__}() has no {given[0]!r}; use {HABITS[given[0]].python}")
        return function(*args, **options)

    return explaining


def option_hint(option: str, known: Container[str]) -> str:
    """Say which of a command's ``known`` options, inputs and keys replaces an unknown option; "" if none does."""
    habit = HABITS.get(option.removeprefix("--").replace("-", "_"), Habit(""))
    return next((instead for instead in habit[1:] if re.split("[ ,]", instead)[0] in known), "")
