"""The diagnosis as one self-contained HTML page, and as JSON."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from err_seg.data import SegmentationPairs
from err_seg.evaluation.results import cell_text
from err_seg.lab.analysis.image_grid import Column, image_grid
from err_seg.lab.diagnosis.counting import SIZES, CostlyImage, Diagnosis
from err_seg.utils.files import write_json, write_text


def save(found: Diagnosis, weights: str, pairs: SegmentationPairs, folder: Path) -> Path:
    """Write ``<benchmark>.json`` and ``<benchmark>.html``, of which the latter is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{found.benchmark}.html"
    finite = [(title, count, None if math.isnan(miou) else miou) for title, count, miou in found.bands]
    worst = [{"image": pairs.names[image.number], "wrong": image.wrong} for image in found.worst]
    document = {**vars(found), "bands": finite, "worst": worst, "weights": weights}
    write_json(file.with_suffix(".json"), document, ensure_ascii=False)
    total, wrong = (sum(pixels) for pixels in zip(*found.sizes, strict=True))
    starts = (0.0, *SIZES)
    sizes = [
        [f"{100 * low:g} to {100 * high:g} %", _share(pixels, total), _share(errors, pixels), _share(errors, wrong)]
        for low, high, (pixels, errors) in zip(starts, SIZES, found.sizes, strict=False)
    ]
    mistaken = [[truth, label, _share(pixels, wrong), alike] for truth, label, pixels, alike in found.confusions]
    template = resources.files(__package__) / "page.html"
    page = Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(found.benchmark),
        note=escape(f"{found.images:,} images, weights {weights or 'random'}"),
        chain=_chain(found.chain),
        similar=_table(["similarity at least", "mIoU"], found.similar),
        sizes=_table(["share of the image", "of all pixels", "of them wrong", "of all errors"], sizes),
        bands=_table(["similarity to training", "classes", "mIoU"], found.bands)
        if found.bands
        else "<p>not asked for</p>",
        confusions=_table(["class", "taken for", "of all errors", "similarity"], mistaken),
        images="".join(_figure(pairs, image) for image in found.worst),
    )
    write_text(file, page)
    return file


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _chain(chain: Sequence[tuple[str, float]]) -> str:
    """Lay the oracles out as rows with bars: what each adds, on what there was before."""
    rows, before = [], 0.0
    for place, (title, miou) in enumerate(chain):
        gain = f"+{miou - before:.2f}" if place else ""
        bar = f'<i style="width:{before:.2f}%"></i><b style="width:{miou - before:.2f}%"></b>'
        rows.append(f'<tr><td>{escape(title)}<td>{miou:.2f}<td>{gain}<td class="bar">{bar}')
        before = miou
    return f"<table><tr><th><th>mIoU<th>gain<th>{''.join(rows)}</table>"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["".join(f"<td>{escape(cell_text(cell))}" for cell in row) for row in rows]
    return f"<table><tr>{''.join(f'<th>{escape(name)}' for name in header)}{''.join(f'<tr>{x}' for x in lines)}</table>"


def _figure(pairs: SegmentationPairs, image: CostlyImage) -> str:
    """Draw an image beside its ground truth, what the model says, and where that is wrong."""
    spec, sample = pairs.spec, pairs[image.number]
    truth = np.where(sample.label == spec.ignore_label, -1, sample.label)
    wrong = np.where((image.labels != truth) & (truth >= 0), 0, -1)
    columns = [
        Column(names, [labels], title, lists_names=False)
        for names, labels, title in (
            (spec.vocabulary, truth, "ground truth"),
            (spec.vocabulary, image.labels, "predicted"),
            (("wrong",), wrong, "wrong"),
        )
    ]
    file = io.BytesIO()
    image_grid([sample.image], columns).convert("RGB").save(file, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    caption = escape(f"{pairs.names[image.number]}: {100 * image.wrong:.1f} % wrong")
    return f'<figure><figcaption>{caption}</figcaption><img alt="{caption}" src="{source}"></figure>'
