"""What is evaluated: the network, or any function of an image and class names.

Such a function stands in a module or a file of yours::

    def segment(image, names):
        \"\"\"Label an image (H, W, 3), uint8 RGB, with a list of N class names.\"\"\"
        return labels

It returns the label map (H, W) of integers 0..N-1, where -1 is none of the names; or maps (N, h, w) of floating point,
one for each name, which are resized to H×W, and whose largest value wins. Both may be NumPy arrays or tensors. What is
named may also be a class, of which one object is made (its ``__init__`` loads the weights), or have an attribute
``settings``: a JSON-able mapping of what its results depend on, which results record.
"""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from err_seg.config import Config, ConfigError, network_settings
from err_seg.data import DatasetSpec, EvaluationItem, EvaluationTransform
from err_seg.evaluation.calibration import confidence_of
from err_seg.evaluation.tta import corruption_of, evaluation_transform, evaluation_views, segment_images
from err_seg.modeling.layers import resize
from err_seg.plugins import module_digest, package_digests
from err_seg.prediction.model import ERRSeg
from err_seg.text.vocabularies import common_vocabulary, synonym_key
from err_seg.utils.device import Precision, resolve_precision
from err_seg.utils.errors import EvaluationError
from err_seg.utils.fingerprint import weights_digest

logger = logging.getLogger(__name__)

OF_THE_NETWORK = ("TEST.TILE", "TEST.REFINE", "TEST.AUG.ENABLED", "TEST.CALIBRATION", "MODEL.WEIGHTS")
"""Settings that a function could not follow."""


class Answer(NamedTuple):
    """What a predictor says of an image.

    Attributes:
        labels: (H, W) integers, indices into the vocabulary; -1: none of it.
        num_kept: how many classes were considered.
        confidence: (H, W) in 0..1, where it is counted.
    """

    labels: Tensor
    num_kept: int
    confidence: Tensor | None = None


Ask = Callable[[Sequence[EvaluationItem]], list[Answer]]


class Predictor(ABC):
    """What is evaluated.

    Attributes:
        name: for the log.
        device: where label maps are counted.
        transform: how images are resized before they are passed on.
        others: whether labels may be none of the evaluated classes.
        source: where the weights are from, as far as known; stored with the results.
    """

    name: str
    device: torch.device
    transform: EvaluationTransform
    others = False
    source: dict[str, Any] = {}  # noqa: RUF012  # replaced, never changed

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what results depend on besides :meth:`settings`, images and label maps."""

    @abstractmethod
    def settings(self, spec: DatasetSpec) -> dict[str, Any]:
        """Return what a benchmark's metrics depend on besides weights and data; it is stored with them."""

    @abstractmethod
    def open(self, spec: DatasetSpec) -> Ask:
        """Prepare for a benchmark's vocabulary; the function returned takes images of it."""

    @property
    def common_names(self) -> Sequence[str]:
        """Names that most images can be described with, of which distractors are drawn."""
        return common_vocabulary()

    def evaluating(self) -> AbstractContextManager[Any]:
        """Return the context in which images are taken."""
        return nullcontext()


class NetworkPredictor(Predictor):
    """The network, as the configuration's ``TEST`` section says."""

    name = "the network"

    def __init__(self, cfg: Config, model: ERRSeg):
        self.cfg, self.model, self.device = cfg, model, model.device
        self.transform = evaluation_transform(cfg)
        self.source = source_of(model)
        precision = resolve_precision(cfg.TEST.PRECISION, model.device)
        if precision.name != model.precision:
            precision = Precision(model.precision, "the model's own")
        self.precision = precision
        self._weights = weights_digest(model)

    def __str__(self) -> str:
        """Return how it computes."""
        return f"precision {self.precision.name} ({self.precision.reason}), without TF32, device {self.device}"

    def identity(self) -> dict[str, Any]:
        """Return weights, network and packages."""
        cfg = self.cfg
        return {
            "weights": self._weights,
            "network": network_settings(cfg),
            "packages": package_digests(cfg.MODEL.IMPORTS),
            **({"calibration": repr(self.model.calibration)} if cfg.TEST.CALIBRATION else {}),
        }

    def settings(self, spec: DatasetSpec) -> dict[str, Any]:
        """Return :func:`evaluation_settings`."""
        return evaluation_settings(self.cfg, spec, num_kept=self.model.num_kept, precision=self.precision)

    @property
    def common_names(self) -> Sequence[str]:
        """The names that few names compete with in prediction."""
        return self.model.vocabulary_encoder.common_names

    def evaluating(self) -> AbstractContextManager[Any]:
        """Return the model's context of evaluation."""
        return self.model.evaluating()

    def open(self, spec: DatasetSpec) -> Ask:
        """Embed the vocabulary."""
        cfg, model = self.cfg, self.model
        text, num_kept = model.embed_vocabulary(spec.vocabulary), benchmark_num_kept(cfg, spec)

        def ask(items: Sequence[EvaluationItem]) -> list[Answer]:
            asked = (text, num_kept, spec.vocabulary, [item.size for item in items])
            results = segment_images(cfg, model, [item.image for item in items], asked)
            for result in results:
                _ = result.labels  # before checked(), which waits until the device is done
            confident = cfg.TEST.CALIBRATION
            return [
                Answer(result.labels, len(result.kept), confidence_of(result) if confident else None)
                for result in (result.checked() for result in results)
            ]

        return ask


class FunctionPredictor(Predictor):
    """A function of an image and class names, see this module; it takes images at their own size, one at a time.

    Args:
        cfg: the configuration, whose settings of the network do not count.
        where: ``module:function`` or ``file.py:function``.

    Raises:
        ConfigError: it is not there; or a setting is given that a function could not follow.
    """

    device = torch.device("cpu")
    others = True

    def __init__(self, cfg: Config, where: str):
        if given := [key for key in OF_THE_NETWORK if attrgetter(key)(cfg)]:
            raise ConfigError(f"{', '.join(given)}: a setting of the network, which --predictor {where} cannot follow")
        self.name, self.transform = where, EvaluationTransform(0, corruption=corruption_of(cfg))
        module, self.function = load_function(where)
        own = dict(getattr(self.function, "settings", {}))
        self._facts = {"predictor": where, "code": module_digest(module), **corruption_setting(cfg), **own}

    def __str__(self) -> str:
        """Return where it is from."""
        return f"by {self.name}"

    def identity(self) -> dict[str, Any]:
        """Return nothing more."""
        return {}

    def settings(self, spec: DatasetSpec) -> dict[str, Any]:
        """Return the function's name, the digest of its module, and its own settings."""
        return self._facts

    def open(self, spec: DatasetSpec) -> Ask:
        """Pass images on with the vocabulary's names."""
        return lambda items: [self._answer(item, spec.vocabulary) for item in items]

    def _answer(self, item: EvaluationItem, names: Sequence[str]) -> Answer:
        image = item.image.permute(1, 2, 0).contiguous().numpy()
        try:
            labels = as_labels(self.function(image, list(names)), item.size, len(names))
        except Exception as error:  # whatever a function of one's own raises
            logger.exception("%s failed for %s", self.name, item.image_path)
            problem = f"{type(error).__name__}: {error}"
            raise EvaluationError(
                f"{self.name} failed for {item.image_path} ({problem}); its stack trace is in the log. Mend it, then "
                "rerun the same command: images are evaluated anew if the code has changed"
            ) from error
        return Answer(labels, len(names))


class WithDistractors(Predictor):
    """Another predictor, asked for ``TEST.DISTRACTORS`` names more, whose pixels are of none of the classes.

    The names are those that most images can be described with, less the benchmark's own, in a shuffled order that is
    always the same, so that a larger number adds names to those of a smaller one.
    """

    others = True

    def __init__(self, asked: Predictor, count: int):
        self.asked, self.count = asked, count
        self.name, self.device, self.transform, self.source = asked.name, asked.device, asked.transform, asked.source

    def __str__(self) -> str:
        """Return how it computes, and the number of names."""
        return f"{self.asked}, with {self.count} distractors"

    def identity(self) -> dict[str, Any]:
        """Return that of the other."""
        return self.asked.identity()

    def evaluating(self) -> AbstractContextManager[Any]:
        """Return the context of the other."""
        return self.asked.evaluating()

    def settings(self, spec: DatasetSpec) -> dict[str, Any]:
        """Return those of the other, and the number of names."""
        return self.asked.settings(spec) | {"distractors": self.count}

    def open(self, spec: DatasetSpec) -> Ask:
        """Add the names to the benchmark's vocabulary.

        Raises:
            ConfigError: there are fewer; or the benchmark has a background class, which has further names already.
        """
        own = {synonym_key(name) for name in spec.vocabulary}
        others = [name for name in self.asked.common_names if synonym_key(name) not in own]
        if self.count > len(others) or spec.variant == "background":
            room = "0, since it has a background class" if spec.variant == "background" else f"at most {len(others)}"
            raise ConfigError(f"TEST.DISTRACTORS is {self.count}, but {spec.name} can have {room}")
        added = np.random.default_rng(0).permutation(len(others))[: self.count].tolist()
        names, own_names = (*spec.vocabulary, *(others[i] for i in added)), len(spec.vocabulary)
        ask = self.asked.open(replace(spec, vocabulary=names, ignore_label=len(names)))

        def without_others(answer: Answer) -> Answer:
            return answer._replace(labels=torch.where(answer.labels < own_names, answer.labels, -1))

        return lambda items: list(map(without_others, ask(items)))


def as_labels(output: Any, size: tuple[int, int], num_names: int) -> Tensor:
    """Turn what a function returns into a label map (H, W) of integers -1..N-1, on the CPU.

    Raises:
        ValueError: it is neither a label map of that size nor maps of N classes, or holds other labels or NaN.
    """
    maps = torch.as_tensor(output).detach().cpu()
    if maps.is_floating_point() and maps.dim() == 3 and len(maps) == num_names:
        maps = resize(maps.float().unsqueeze(0), size)[0]
        if maps.isnan().any():
            raise ValueError("its maps hold NaN")
        return maps.argmax(dim=0)
    if maps.is_floating_point() or maps.dtype == torch.bool or maps.shape != size:
        raise ValueError(
            f"it returned shape {tuple(maps.shape)}, {maps.dtype}; expected a label map of integers {tuple(size)}, or "
            f"floating-point maps ({num_names}, h, w), one for each name"
        )
    maps = maps.long()
    low, high = maps.amin().item(), maps.amax().item()
    if low < -1 or high >= num_names:
        raise ValueError(f"it returned labels {low}..{high}, expected -1..{num_names - 1} for {num_names} names")
    return maps


def load_function(where: str) -> tuple[ModuleType, Callable[[NDArray[np.uint8], list[str]], Any]]:
    """Import ``module:function`` or ``file.py:function``, and make an object of a class; returns it after its module.

    Raises:
        ConfigError: that fails, or it cannot be called.
    """
    place, colon, name = where.rpartition(":")
    try:
        if not colon:
            raise ValueError("expected module:function or file.py:function")
        if place.endswith(".py"):
            file = Path(place).resolve(strict=True)
            spec = spec_from_file_location(f"predictor_{file.stem}", file)  # not the name of an installed module
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[spec.name] = module_from_spec(spec)  # where dataclasses look for it
            spec.loader.exec_module(module)
        else:
            module = import_module(place)
        found = getattr(module, name)
        function = found() if isinstance(found, type) else found
    except Exception as error:  # whatever a module of one's own raises
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"--predictor {where} cannot be loaded ({problem}); mend it, or correct the name") from error
    if not callable(function):
        raise ConfigError(f"--predictor {where} is {function!r}, expected a function (image, names)")
    return module, function


def benchmark_num_kept(cfg: Config, spec: DatasetSpec) -> int | None:
    """Return K for a benchmark: ``MODEL.CRM.NUM_KEPT`` if set, else the benchmark's own; ``None``: the model's."""
    return (cfg.MODEL.CRM.NUM_KEPT or spec.num_kept) if cfg.MODEL.CRM.ENABLED else None


def source_of(model: ERRSeg) -> dict[str, Any]:
    """Return where a model's weights were read from, and how it is calibrated, as far as known: entries of settings."""
    found = {"source": model.source, "calibration": model.calibration}
    return {name: asdict(value) for name, value in found.items() if value}


def evaluation_settings(
    cfg: Config, spec: DatasetSpec, *, num_kept: int | None, precision: Precision
) -> dict[str, Any]:
    """Return what a benchmark's metrics depend on besides weights and data; it is stored with them.

    ``num_kept`` is the model's own K, for a benchmark that has none.
    """
    return {
        "K": benchmark_num_kept(cfg, spec) or num_kept,
        "min_score": cfg.MODEL.CRM.MIN_SCORE,
        "S": cfg.INPUT.SIZE,
        "shortest_side": evaluation_transform(cfg).min_size,
        "longest_side": cfg.INPUT.MAX_SIZE_TEST,
        "tile": cfg.TEST.TILE,
        "refine": cfg.TEST.REFINE,
        "views": [{"size": view.size, "mirrored": view.mirrored} for view in evaluation_views(cfg)],
        "precision": precision.name,
        "precision_reason": precision.reason,
        "tf32": False,  # ``ERRSeg.evaluating`` switches it off
        "weights": cfg.MODEL.WEIGHTS,
        **corruption_setting(cfg),
    }


def corruption_setting(cfg: Config) -> dict[str, str]:
    """Return the corruption of images as an entry of settings; empty without one."""
    corruption = corruption_of(cfg)
    return {"corruption": "{}, severity {}".format(*corruption)} if corruption else {}
