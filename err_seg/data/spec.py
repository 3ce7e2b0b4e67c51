"""The declaration of a data set: where it lies, what its labels mean, how it is evaluated."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from err_seg.data.label_values import KEYS, LabelRule, declared_rule
from err_seg.text.prompts import check_vocabulary
from err_seg.text.vocabularies import find_class, load_vocabulary, synonym_key
from err_seg.utils.errors import ConfigError, DamagedFileError
from err_seg.utils.files import datasets_root
from err_seg.utils.images import BACKGROUND
from err_seg.utils.messages import did_you_mean

Variant = Literal["standard", "background"]
LeftOutAs = Literal["ignored", "background"]
_LATER = ("split", "label_rule", "left_out", "left_out_as", "seen")


class DatasetError(ValueError):
    """A data set that is declared wrongly, unknown, or not on disk as declared."""


class PairError(DatasetError, DamagedFileError):
    """An image and a label map that do not belong together, or not to their data set; the message names the file."""


@dataclass(frozen=True)
class DatasetSpec:
    """Declaration of a data set for semantic segmentation.

    Image and label map belong together if their names are the same up to the endings ``image_ext`` and
    ``label_ext``; sub-folders count as part of the name. An ending may be more than the file type: Cityscapes takes
    ``_leftImg8bit.png`` and ``_gtFine_labelIds.png``.

    Attributes:
        name: what it is found by.
        image_dir, label_dir: folders, absolute or under the data sets' root.
        vocabulary: the class names that the model chooses from, in label order.
        image_ext, label_ext: endings of the file names (one, or several for images); upper or lower case.
        ignore_label: the label of pixels that count neither in training nor in evaluation.
        num_kept: K, the number of classes kept per image in evaluation; None = as the model's configuration says.
        variant: "standard", or "background": the vocabulary's first ``num_foreground`` classes are evaluated by name,
            and all others together as one class "background" with the label ``num_foreground`` (the PAS-20b rule).
        num_foreground: see ``variant``; given for "background" only.
        num_images: how many pairs the complete data set has; None = unknown.
        preparation: what ``datasets/prepare.py`` calls it; None = nothing to prepare.
        aliases: further names, such as other projects' names for it.
        split: a text file, absolute or under the data sets' root, that lists the pairs; ``None``: all in the folders. A
            line is the name of a pair ("aachen/0001"), or image and label map. Paths lead from within a folder or
            through its name ("/SegNet/CamVid/train/0001.png" for the folder "train"). Lines with # do not count.
        label_rule: what the values in the label files mean; ``None``: they are the labels.
        left_out: names of the vocabulary that training leaves out; evaluation counts them.
        left_out_as: what training takes their pixels for: "ignored", or "background", negative for every class.
        seen: names that training has seen, which results tell from the others; empty: all but ``left_out``, if given.
    """

    is_drawn: ClassVar[bool] = False  # whether ``make_available`` makes the files, from the declaration alone

    name: str
    image_dir: str
    label_dir: str
    vocabulary: tuple[str, ...]
    image_ext: str | tuple[str, ...] = ".jpg"
    label_ext: str = ".png"
    ignore_label: int = 255
    num_kept: int | None = None
    variant: Variant = "standard"
    num_foreground: int | None = None
    num_images: int | None = None
    preparation: str | None = None
    aliases: tuple[str, ...] = ()
    split: str | None = None
    label_rule: LabelRule | None = None
    left_out: tuple[str, ...] = ()
    left_out_as: LeftOutAs = "ignored"
    seen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def require(expected: str, is_right: Callable[[Any], object], *keys: str) -> None:
            for key in keys:
                if not is_right(value := getattr(self, key)):
                    raise DatasetError(f"data set {self.name!r}: {key} is {value!r}, expected {expected}")

        def are_texts(value: Any) -> bool:
            return isinstance(value, tuple) and all(isinstance(text, str) and text for text in value)

        text, texts = "a string that is not empty", "strings that are not empty"
        require(text, lambda value: are_texts((value,)), "name", "image_dir", "label_dir", "label_ext")
        require(text, lambda value: value is None or are_texts((value,)), "split")
        require(texts, lambda value: are_texts(value if isinstance(value, tuple) else (value,)), "image_ext")
        require(texts, are_texts, "aliases", "left_out", "seen")
        is_list = "a list of class names; load_vocabulary reads one by its name or path"
        require(is_list, lambda value: isinstance(value, Iterable) and not isinstance(value, str), "vocabulary")
        object.__setattr__(self, "vocabulary", check_vocabulary(self.vocabulary, f"data set {self.name!r}"))
        some = "names of the vocabulary, some but not all"
        require(some, lambda names: not names or {*names} < {*self.vocabulary}, "left_out", "seen")
        positive = "an integer of at least 1"
        require(positive, lambda k: k is None or (type(k) is int and k >= 1), "num_kept", "num_images")
        for key, choices in (("variant", get_args(Variant)), ("left_out_as", get_args(LeftOutAs))):
            require(f"one of {', '.join(choices)}", choices.__contains__, key)
        last = len(self.vocabulary) - 1
        if self.variant == "background":
            require(f"an integer from 1 to {last}", lambda n: type(n) is int and 1 <= n <= last, "num_foreground")
            require("none with the variant 'background'", lambda names: not names, "left_out")
        else:
            require("None without the variant 'background'", lambda n: n is None, "num_foreground")
        require("an integer", lambda label: type(label) is int, "ignore_label")
        labels = range(self.num_evaluated_classes)
        allowed = f"no class index (0..{labels[-1]})"
        require(allowed, lambda label: label not in (*labels, BACKGROUND), "ignore_label")

    @property
    def image_endings(self) -> tuple[str, ...]:
        """``image_ext`` as a tuple."""
        return (self.image_ext,) if isinstance(self.image_ext, str) else self.image_ext

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        """Names of the classes that labels stand for, in label order."""
        if self.variant == "background":
            return (*self.vocabulary[: self.num_foreground], "background")
        return self.vocabulary

    @property
    def num_evaluated_classes(self) -> int:
        """Number of values that a label may take, the ignore label aside."""
        return len(self.vocabulary) if self.num_foreground is None else self.num_foreground + 1

    @property
    def seen_and_unseen(self) -> tuple[tuple[int, ...], ...]:
        """Labels of the classes that training has seen, and of the others, "background" in neither; else empty."""
        if not self.seen and not self.left_out:
            return ()
        seen = self.seen or [name for name in self.vocabulary if name not in self.left_out]
        names = self.vocabulary[: self.num_foreground]
        return tuple(tuple(i for i, name in enumerate(names) if (name in seen) is wanted) for wanted in (True, False))

    def for_training(self, ignored_are_negatives: bool = False) -> "DatasetSpec":
        """Return the declaration without ``left_out``, whose pixels are ignored, or labelled ``BACKGROUND``.

        Raises:
            ConfigError: they are to be ignored, but what is ignored are negatives.
        """
        if not self.left_out:
            return self
        if ignored_are_negatives and self.left_out_as == "ignored":
            raise ConfigError(
                f"MODEL.LOSS.IGNORED_ARE_NEGATIVES is True, so that pixels of what {self.name!r} leaves out would be "
                "negatives, not ignored; set it to False, or left_out_as: background in the data set's entry"
            )
        names = [name for name in self.vocabulary if name not in self.left_out]
        other = BACKGROUND if self.left_out_as == "background" else self.ignore_label
        renumbered = {i: names.index(x) if x in names else other for i, x in enumerate(self.vocabulary)}
        renumbered[self.ignore_label] = self.ignore_label
        rule = self.label_rule or LabelRule(tuple((label, label) for label in sorted(renumbered)))
        labels = tuple((value, renumbered[label]) for value, label in rule.labels)
        others = None if rule.others is None else renumbered[rule.others]
        rule = replace(rule, labels=labels, others=others)
        return replace(self, vocabulary=tuple(names), label_rule=rule, left_out=(), seen=())

    def facts(self) -> dict[str, Any]:
        """Return the declaration, JSON-able; what earlier versions did not have is there only where it is given."""
        given = asdict(self).items()
        return {key: value for key, value in given if key not in _LATER or value != getattr(DatasetSpec, key)}

    def image_folder(self, root: str | os.PathLike[str] | None = None) -> Path:
        """Folder of the images, with the data sets' root before it if it is relative."""
        return datasets_root(root) / os.path.expanduser(self.image_dir)

    def label_folder(self, root: str | os.PathLike[str] | None = None) -> Path:
        """Folder of the label maps, with the data sets' root before it if it is relative."""
        return datasets_root(root) / os.path.expanduser(self.label_dir)

    def make_available(self, root: str | os.PathLike[str] | None = None) -> None:
        """Create the files, if that needs nothing else; does nothing for most data sets."""


def spec_from_dict(entry: Mapping[str, Any]) -> DatasetSpec:
    """The declaration that a configuration file's mapping stands for.

    Keys are the attributes of :class:`DatasetSpec` but ``label_rule``, and those in the table of
    :mod:`err_seg.data.catalog`.

    Raises:
        DatasetError: an unknown or missing key, a value of the wrong kind, or keys that contradict each other.
        ValueError, FileNotFoundError: the vocabulary cannot be loaded.
    """
    if not isinstance(entry, Mapping):
        raise DatasetError(f"a data set is declared by a mapping of keys to values, found {entry!r}")
    keys = [*(field.name for field in fields(DatasetSpec) if field.name != "label_rule"), *KEYS]
    label = f"data set {entry.get('name', '(without a name)')!r}"
    for key in entry:
        if key not in keys:
            hint = did_you_mean(key, keys, f"known keys: {', '.join(keys)}")
            raise DatasetError(f"{label}: unknown key {key!r}; {hint}")
    missing = [field.name for field in fields(DatasetSpec) if field.default is MISSING and field.name not in entry]
    if missing:
        raise DatasetError(f"{label}: missing {', '.join(missing)}")
    given = ((key, value) for key, value in entry.items() if key not in KEYS)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given}
    if isinstance(values["vocabulary"], str):
        values["vocabulary"] = load_vocabulary(values["vocabulary"])
    ignored = values.get("ignore_label", DatasetSpec.ignore_label)
    ignored = ignored if isinstance(ignored, tuple) else (ignored,)
    left_out, seen = (values.pop(key, None) or () for key in ("left_out", "seen"))
    spec = DatasetSpec(**{**values, "ignore_label": next(iter(ignored), None)})
    left_out = [left_out] if isinstance(left_out, str) else left_out
    if isinstance(seen, str):
        known = {*map(synonym_key, load_vocabulary(seen))}
        seen = [name for name in spec.vocabulary if synonym_key(name) in known] or [seen]
    try:
        rule = declared_rule(entry, spec.evaluated_classes, ignored)
        lists = [tuple(spec.vocabulary[find_class(spec.vocabulary, x)] for x in names) for names in (left_out, seen)]
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{label}: {error}") from error
    return replace(spec, label_rule=rule, left_out=lists[0], seen=lists[1])
