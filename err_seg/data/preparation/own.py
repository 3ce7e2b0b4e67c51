"""From annotations of one's own images to label maps, and to the configuration that names them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from os.path import abspath, relpath
from pathlib import Path

import numpy as np
import yaml

from err_seg.data.preparation.annotations import AREAS, READERS, Annotated, draw, images_by_name
from err_seg.data.preparation.convert import LOCK, Outcome, SplitReport, only_run
from err_seg.data.preparation.images import image_size, naming, write_label
from err_seg.data.preparation.parallel import for_each
from err_seg.data.preparation.sources import Listing, PreparationError, require
from err_seg.data.spec import DatasetSpec
from err_seg.utils.errors import DamagedFileError
from err_seg.utils.files import write_text
from err_seg.utils.messages import did_you_mean, listed

IGNORED = "__ignore__"  # labelme's name for what has no class


def prepare_from(
    form: str, images: Path, annotations: Path, output: Path, classes: Sequence[str], background: str, workers: int
) -> SplitReport:
    """Convert annotations; ``output`` gets ``labels/``, ``classes.txt`` and, last, ``dataset.yaml``, all written again.

    Args:
        form: a key of ``READERS``, whose functions say what ``images`` and ``annotations`` are.
        output: a folder; its name becomes the data set's.
        classes: names in label order, with synonyms; if empty, the format's own list, or all labels sorted.
        background: the class of pixels without annotation, added to the others if need be; "" ignores such pixels.
        workers: number of processes.

    Raises:
        PreparationError, ValueError: nothing can be converted, a label is none of the classes, two images would have
            one label map, or ``labels`` holds other files.
        OSError: a file cannot be written.
    """
    images, output, failed = require(Path(abspath(images))), Path(abspath(output)), list[str]()
    with naming(require(annotations)):
        listed_classes, found = READERS[form](images, Path(abspath(annotations)), classes, failed)
    shapes = [shape for annotated in found for shape in annotated.shapes]
    used = {shape.name for shape in shapes if shape.kind in AREAS} - {IGNORED}
    vocabulary = [*(classes or listed_classes or sorted(used))]
    if not (found and vocabulary):
        raise PreparationError(f"nothing to convert: {listed(failed, 3) or f'{annotations} holds no annotations'}")
    indices = index_names(vocabulary, used, background)
    ignore, ending = (255, ".png") if len(vocabulary) <= 255 else (65535, ".tif")
    indices[IGNORED] = ignore
    endings = tuple(sorted({annotated.image.suffix.lower() for annotated in found}))
    labels = output / "labels"
    spec = DatasetSpec(output.name, f"{images}", f"{labels}", tuple(vocabulary), endings, ending, ignore)
    present, pairs = images_by_name(images), dict[str, Annotated]()
    for annotated in found:
        stem = annotated.image.relative_to(images).with_suffix("").as_posix()
        twins = [f"{path}" for path in present[stem] if path.suffix.lower() in endings]
        twins = [pairs[stem].place, annotated.place] if stem in pairs else twins
        if len(twins) > 1:
            raise PreparationError(f"two for one label map, {stem}{ending}: {listed(twins)}; remove or rename one")
        pairs[stem] = annotated
    left_out = Counter(shape.kind for shape in shapes if shape.kind not in AREAS)
    notes = [f"{count:,} shapes of the kind {kind} left out, which is no area" for kind, count in left_out.items()]
    if others := len(present.keys() - pairs.keys()):
        notes.append(f"{others:,} images without annotations left out")
    report = SplitReport(form, labels, len(pairs), Listing([], notes), failed=failed)
    if labels.is_dir() and any(labels.iterdir()) and not (labels / LOCK).exists():
        raise PreparationError(f"{labels} holds files that this command did not write; name another --output")
    with only_run(labels):
        for path in (output / "dataset.yaml", *labels.rglob("[!.]*.png"), *labels.rglob("[!.]*.tif")):
            path.unlink(missing_ok=True)
        write = partial(write_label_map, spec, indices, indices[background or IGNORED])
        for_each(write, [*pairs.items()], report.add, workers=workers, title=f"prepare {spec.name}")
        if not report.written:
            raise PreparationError(f"no label map was written: {listed(failed, 3) or 'no class in any of them'}")
        write_text(output / "classes.txt", "".join(f"{name}\n" for name in vocabulary))
        write_text(output / "dataset.yaml", declaration(spec))
    return report


def index_names(vocabulary: list[str], used: set[str], background: str) -> dict[str, int]:
    """Return the class of each name and synonym; adds the background to the vocabulary if it has no class.

    Raises:
        PreparationError: a name that is used has no class.
    """
    indices = {word.strip(): index for index, name in enumerate(vocabulary) for word in name.split(",")}
    indices |= {name.strip(): index for index, name in enumerate(vocabulary)}
    if unknown := sorted(used - indices.keys()):
        hints = [f"{name!r} ({did_you_mean(name, vocabulary, 'nothing is like it')})" for name in unknown]
        raise PreparationError(f"labels that are none of the classes: {listed(hints)}; correct them, or --classes")
    if background and background not in indices:
        indices[background] = len(vocabulary)
        vocabulary.append(background)
    return indices


def declaration(spec: DatasetSpec) -> str:
    """Return the configuration that declares and uses a data set, in the parent of its folder of label maps."""
    keys = ("name", "image_dir", "label_dir", "vocabulary", "image_ext", "label_ext", "ignore_label")
    entry = {key: list(v) if isinstance(v := getattr(spec, key), tuple) else v for key in keys}
    entry |= {"image_dir": relpath(spec.image_dir, f"{spec.label_dir}/.."), "label_dir": "labels"}
    tree = {"DATASETS": {"CUSTOM": [entry], "TRAIN": [spec.name], "TEST": [spec.name]}}
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return f"# Written by err-seg prepare from. Under VAL and TEST, name other images than those of TRAIN.\n{text}"


def write_label_map(spec: DatasetSpec, indices: Mapping[str, int], fill: int, pair: tuple[str, Annotated]) -> Outcome:
    """Draw and write the label map of an annotated image, unless it has no class."""
    stem, (place, image, stated, shapes) = pair
    try:
        with naming(place):
            with naming(image):
                size = image_size(image)
            if stated not in ((None, None), size):
                raise ValueError(f"is for {stated[1]}x{stated[0]} pixels; {image}, upright, is {size[1]}x{size[0]}")
            label = np.full(size, fill, np.min_scalar_type(spec.ignore_label))
            draw(shapes, label, indices)
    except DamagedFileError as error:
        return Outcome(stem, complaint=str(error))
    if (label == spec.ignore_label).all():
        return Outcome(stem)
    write_label(label, Path(spec.label_dir) / f"{stem}{spec.label_ext}")
    return Outcome(stem, written=True)
