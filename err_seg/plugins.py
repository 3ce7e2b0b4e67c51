"""Parts from packages of your own: the registries in which they stand, and the import of these packages.

A package registers its parts when it is imported, and a configuration chooses them by name::

    from err_seg.plugins import DECODERS


    @DECODERS.register("pixel_shuffle")  # chosen by MODEL.GUD.NAME: pixel_shuffle
    def build(cfg, maps):
        return PixelShuffleDecoder(dim=cfg.MODEL.COST_EMBEDDING.DIM)

``MODEL.IMPORTS: [my_package]`` imports it before anything is built. An installed package may instead declare the entry
point group ``err_seg.plugins``; such packages are imported whenever a configuration is loaded. Each import is logged. A
checkpoint never causes one: it only says which packages its network needs.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from err_seg.utils.errors import ConfigError
from err_seg.utils.files import file_sha256
from err_seg.utils.messages import did_you_mean

logger = logging.getLogger(__name__)

T = TypeVar("T")
GROUP = "err_seg.plugins"


class Registry(Generic[T]):
    """Parts by the name that the configuration key ``key`` chooses them with."""

    def __init__(self, key: str):
        self.key = key
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Register what is decorated under a name.

        Raises:
            ConfigError: another part has that name.
        """

        def add(part: T) -> T:
            present = self._parts.setdefault(name, part)
            if _origin(present) != _origin(part):
                raise ConfigError(
                    f"{self.key}: the name {name!r} is taken by {'.'.join(_origin(present))}; choose another"
                )
            self._parts[name] = part  # the module may have been reloaded
            return part

        return add

    def get(self, name: str) -> T:
        """Return the part of that name.

        Raises:
            ConfigError: no imported package has registered it.
        """
        if name not in self._parts:
            hint = did_you_mean(name, self._parts, "name the package that registers it in MODEL.IMPORTS")
            known = f"registered: {', '.join(map(repr, self._parts))}" if self._parts else "none is registered"
            raise ConfigError(f"{self.key}: there is no {name!r} ({known}); {hint}")
        return self._parts[name]


def _origin(part: Any) -> tuple[str, str]:
    return part.__module__, part.__qualname__


ENCODERS: Registry[Callable[..., Any]] = Registry("MODEL.CLIP.ENCODER")
"""``(cfg, clip) -> CLIPEncoder``: reads open_clip's ``clip`` densely."""

COST_EMBEDDINGS: Registry[Callable[..., Any]] = Registry("MODEL.COST_EMBEDDING.NAME")
FUSIONS: Registry[Callable[..., Any]] = Registry("MODEL.ESCF.NAME")
DECODERS: Registry[Callable[..., Any]] = Registry("MODEL.GUD.NAME")
"""``(cfg, maps) -> nn.Module``: a part of the head for an encoder with these ``FeatureMaps``, which takes and returns
what the part in its place does: ``CostEmbedding``, ``ESCF``, ``GUD`` of :mod:`err_seg.modeling`."""

LOSS_TERMS: Registry[Callable[..., Any]] = Registry("MODEL.LOSS.TERMS")
"""``(cfg) -> term``, with ``term(inputs) -> Tensor``: from :class:`err_seg.engine.step.LossInputs` to a scalar."""

TRANSFORMS: Registry[Callable[..., Any]] = Registry("INPUT.TRANSFORMS")
"""``(cfg) -> transform``, with ``transform(image, label, generator) -> (image, label)``; it follows the package's own
training transform, on (3, S, S) uint8 and (S, S) int64. All random choices come from the ``torch.Generator``."""

METRICS: Registry[Callable[..., Any]] = Registry("TEST.METRICS")
"""``(confusion, class_names) -> {name: value}``, from (N, N) int64 counts of pixels, [prediction, ground truth]."""

SECTIONS: Registry[type] = Registry("EXTRA")
"""Subclasses of :class:`err_seg.config.section.Section`, the settings of a part, under ``EXTRA.<name>``."""

_versions: dict[str, str] = {}


def import_packages(names: Iterable[str]) -> None:
    """Import packages, and those with an entry point, so that their parts are registered; each is imported once.

    Raises:
        ConfigError: a package is missing or fails; names it.
    """
    for name in dict.fromkeys([*_entry_points(), *names]):
        if name in _versions:
            continue
        try:
            module = import_module(name)
        except Exception as error:  # whatever a module does when it is imported
            raise ConfigError(
                f"the package {name!r}, of MODEL.IMPORTS or with an entry point {GROUP}, cannot be imported "
                f"({type(error).__name__}: {error}); install or mend it, or add its folder to PYTHONPATH"
            ) from error
        _versions[name] = _version_of(name, module)
        logger.info("imported %s %s from %s", name, _versions[name], getattr(module, "__file__", None))


def imported_packages() -> dict[str, str]:
    """Return the packages that :func:`import_packages` has imported, with their versions ("" if they have none)."""
    return dict(_versions)


def package_digests(names: Iterable[str]) -> dict[str, str]:
    """Return the digest of the Python files of each package of :func:`import_packages`: results depend on its code."""
    return {name: module_digest(import_module(name)) for name in sorted({*_entry_points(), *names})}


def module_digest(module: ModuleType) -> str:
    """Return the digest of a module's file, or of all Python files of a package."""
    folders = map(Path, getattr(module, "__path__", ()))
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))] or [Path(str(module.__file__))]
    listing = "\n".join(f"{file_sha256(file)} {file.name}" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


@cache
def _entry_points() -> tuple[str, ...]:
    return tuple(point.module for point in metadata.entry_points(group=GROUP))


def _version_of(name: str, module: Any) -> str:
    package = name.split(".")[0]
    versions = map(version_of, metadata.packages_distributions().get(package, [package]))
    return next(filter(None, versions), str(getattr(module, "__version__", "")))


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, or ``None``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
