"""From the annotations of one's own images to label maps, and to the configuration that names them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from os.path import abspath
from pathlib import Path

import numpy as np
import yaml

from err_seg.data.preparation.annotations import AREAS, READERS, Annotated, draw, images_by_name
from err_seg.data.preparation.convert import LOCK, Outcome, SplitReport, alone_in
from err_seg.data.preparation.images import image_size, naming, write_label
from err_seg.data.preparation.parallel import for_each
from err_seg.data.preparation.sources import Listing, PreparationError, require
from err_seg.data.spec import DatasetSpec
from err_seg.utils.errors import DamagedFileError
from err_seg.utils.files import write_text
from err_seg.utils.messages import did_you_mean, listed


def prepare_from(
    form: str,
    images: Path,
    annotations: Path,
    output: Path,
    *,
    classes: Sequence[str] = (),
    background: str = "",
    workers: int = 1,
) -> SplitReport:
    """Convert annotations: ``output`` gets ``labels/``, ``classes.txt`` and ``dataset.yaml``, all written again.

    Args:
        form: a key of ``READERS``.
        images, annotations: where they are, see the reader.
        output: folder; its name becomes that of the data set.
        classes: names in label order, with synonyms; else the format's own order, or sorted.
        background: the class of pixels without annotation, added to the classes if need be; "": they are ignored.
        workers: number of processes.

    Raises:
        PreparationError, ValueError: nothing can be converted, or a label is none of the classes.
        OSError: a file cannot be written.
    """
    images, output, failed = require(Path(abspath(images))), Path(abspath(output)), list[str]()
    with naming(require(annotations)):
        names, found = READERS[form](images, annotations, classes, failed)
    if not found:
        raise PreparationError(f"nothing to convert: {next(iter(failed), f'{annotations} holds no annotations')}")
    used = {shape.name for entry in found for shape in entry.shapes if shape.kind in AREAS}
    vocabulary = [*(classes or names or sorted(used))]
    vocabulary += [background] * (background not in ["", *vocabulary])
    synonyms = {word.strip(): index for index, name in enumerate(vocabulary) for word in name.split(",")}
    indices = {**synonyms, **{name.strip(): index for index, name in enumerate(vocabulary)}}
    if unknown := sorted(used - indices.keys()):
        hints = [f"{name!r} ({did_you_mean(name, vocabulary, 'nothing like it')})" for name in unknown]
        raise PreparationError(
            f"{annotations}: labels that are none of the classes: {listed(hints)}; correct them, or add them to the file of --classes"
        )
    ignore, ending = (255, ".png") if len(vocabulary) < 256 else (65535, ".tif")
    endings = tuple(sorted({entry.image.suffix.lower() for entry in found}))
    labels = output / "labels"
    spec = DatasetSpec(output.name, str(images), str(labels), tuple(vocabulary), endings, ending, ignore)
    pairs, present = dict[str, Annotated](), images_by_name(images)
    for entry in found:
        stem = entry.image.relative_to(images).with_suffix("").as_posix()
        twins = [path for path in present.get(stem, []) if path.suffix.lower() in endings]
        if stem in pairs or len(twins) > 1:
            both = f"annotated twice: {pairs[stem].place}, {entry.place}" if stem in pairs else listed(twins)
            raise PreparationError(f"one label map, {labels / stem}{ending}, would be that of two: {both}; remove one")
        pairs[stem] = entry
    left_out = Counter(shape.kind for entry in found for shape in entry.shapes if shape.kind not in AREAS)
    notes = [f"left out, as it is no area: {count:,} {kind}" for kind, count in sorted(left_out.items())]
    if others := len([stem for stem in present if stem not in pairs]):
        notes.append(f"left out, as they are not annotated: {others:,} images in {images}")
    report = SplitReport(form, labels, len(pairs), Listing([], notes), failed=failed)
    if labels.is_dir() and any(labels.iterdir()) and not (labels / LOCK).exists():
        raise PreparationError(f"{labels} holds files that this command did not write; give another --output")
    with alone_in(labels):
        (output / "dataset.yaml").unlink(missing_ok=True)
        for path in labels.rglob("[!.]*"):
            if path.suffix in (".png", ".tif"):
                path.unlink()
        fill = indices.get(background, ignore)
        function = partial(convert_annotated, spec, indices, fill)
        for_each(function, [*pairs.items()], report.add, workers=workers, title=f"prepare {output.name}")
        if not report.written:
            raise PreparationError("no label map was written: " + next(iter(report.failed), "no class in any"))
        write_text(output / "classes.txt", "".join(f"{name}\n" for name in vocabulary))
        write_text(output / "dataset.yaml", dataset_yaml(spec, form))
    return report


def convert_annotated(spec: DatasetSpec, indices: Mapping[str, int], fill: int, pair: tuple[str, Annotated]) -> Outcome:
    """Write the label map of an annotated image, if it has any class."""
    stem, entry = pair
    try:
        with naming(entry.place):
            size = image_size(entry.image)
            if entry.size not in (None, size):
                (height, width), declared = size, f"{entry.size[1]}x{entry.size[0]}"
                raise ValueError(f"is for an image of {declared} pixels; {entry.image} is {width}x{height}, upright")
            label = np.full(size, fill, np.min_scalar_type(spec.ignore_label))
            draw(entry, label, indices, spec.ignore_label)
    except DamagedFileError as error:
        return Outcome(stem, complaint=str(error))
    if (label == spec.ignore_label).all():
        return Outcome(stem)
    write_label(label, Path(spec.label_dir) / f"{stem}{spec.label_ext}")
    return Outcome(stem, written=True)


def dataset_yaml(spec: DatasetSpec, form: str) -> str:
    """Return the text of a configuration that trains on a data set."""
    keys = ("name", "image_dir", "label_dir", "vocabulary", "image_ext", "label_ext", "ignore_label")
    entry = {key: list(v) if isinstance(v := getattr(spec, key), tuple) else v for key in keys}
    tree = {"DATASETS": {"CUSTOM": [entry], "TRAIN": [spec.name], "TEST": [spec.name]}}
    comment = f"# written by err-seg prepare from {form}; name other images than those of TRAIN under TEST\n"
    return comment + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
