"""The page: its parts, and the labelling when the button is pressed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import gradio as gr
import numpy as np
from PIL import Image
from pydantic import Field, StrictFloat, StrictInt, StrictStr, create_model

from err_seg.data import ImageReadError, read_image
from err_seg.drawing.colors import class_colors
from err_seg.drawing.overlay import OPACITY, area_shares
from err_seg.drawing.text import first_synonym
from err_seg.inference.words import NOTHING, Words, WordsError, parse_words, split_names
from err_seg.modeling.err_seg import ERRSeg
from err_seg.modeling.segmentation import Segmentation
from err_seg.prompts import VocabularyError
from err_seg.web.guard import LABEL, SAMPLE, Event, Kind, UploadedImage
from err_seg.web.uploads import NoSuchUpload, Uploads

MAX_PIXELS = 40_000_000
MAX_CLASSES = 1000
SHOWN_SIDE = 1400
MOST_KEPT = 64
WAITING = 16
MINUTE = 60
COLUMNS = ["class", "CRM score", "share", "probability"]
Share: TypeAlias = Annotated[StrictFloat, Field(ge=0, le=1)]
NumKept: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MOST_KEPT)]


def build_page(model: ERRSeg, words: str, uploads: Uploads, samples: Sequence[Path] = ()) -> gr.Blocks:
    """Lay the page out.

    Args:
        model: see :func:`err_seg.load`.
        words: first content of the field for class names.
        uploads: the files that may be labelled.
        samples: some of these, to try.
    """
    page = gr.Blocks(title="ERR-Seg", analytics_enabled=False, delete_cache=(10 * MINUTE, 60 * MINUTE))
    with page:
        gr.Markdown("# ERR-Seg\nAn image and your words in, a label for every pixel out.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                upload = gr.Image(type="filepath", sources=["upload", "clipboard"], label="Image", height=300)
                upload.preprocess = uploaded_path
                names = gr.Textbox(
                    words, label="Classes", info="with commas between, or one a line", lines=3, max_lines=8
                )
                background = gr.Textbox(label="None of these", info="further words; their pixels stay unpainted")
                threshold = gr.Slider(0, 1, 0, step=0.01, label="Least probability", info="below it: none of these")
                kept = gr.Slider(1, MOST_KEPT, model.num_kept or MOST_KEPT, step=1, label="Classes kept (K)")
                button = gr.Button("Label the image", variant="primary")
            with gr.Column(scale=3, min_width=400):
                note = gr.Markdown()
                image = gr.AnnotatedImage(label="Result: point at a class to see it alone", buttons=["fullscreen"])
                table = gr.Dataframe(headers=COLUMNS, label="Kept classes", interactive=False)
        if samples:
            gr.Examples([[str(path)] for path in samples], [upload], label="Samples", cache_examples=False)

        def label_image(path: str | None, *settings: Any) -> tuple[Any, str, list[list[str]]]:
            try:
                return label_upload(model, path and str(uploads.find(path)), *settings)
            except (ImageReadError, NoSuchUpload, VocabularyError, WordsError) as error:
                message = str(error) if path is None else str(error).replace(path, Path(path).name)
                return gr.AnnotatedImage(None), f"⚠ {message}", []

        inputs = [upload, names, background, threshold, kept]
        button.click(label_image, inputs, [image, note, table], concurrency_limit=1, api_name=LABEL)
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def event_kinds(page: gr.Blocks, num_samples: int) -> dict[str, Kind]:
    """Return the page's events: the types and ranges of their fields, as laid out above."""
    numbers = {event["api_name"]: event["id"] for event in page.config["dependencies"]}
    fields: dict[str, Any] = {LABEL: tuple[UploadedImage | None, StrictStr, StrictStr, Share, NumKept]}
    if num_samples:
        fields[SAMPLE] = tuple[Annotated[StrictInt, Field(ge=0, lt=num_samples)]]
    return {name: Kind(numbers[name], create_model(name, __base__=Event, data=kinds)) for name, kinds in fields.items()}


def uploaded_path(payload: Any) -> str | None:
    """Pass on the path of an upload, which Gradio would otherwise decode itself, with its own errors."""
    return None if payload is None else payload.path


def label_upload(
    model: ERRSeg, path: str | None, names: str, background: str, threshold: float, num_kept: int
) -> tuple[Any, str, list[list[str]]]:
    """Label an uploaded image: the annotated image, a line with the time taken, and the kept classes' table.

    Raises:
        ImageReadError: no image, a damaged one, or one of too many pixels.
        WordsError, VocabularyError: words that cannot be used.
    """
    if path is None:
        raise ImageReadError("Choose an image first.")
    words = parse_words(split_names(names), [background, str(threshold)])
    if len(words.vocabulary) > MAX_CLASSES:
        raise WordsError(f"{len(words.vocabulary)} classes; this page takes up to {MAX_CLASSES}")
    check_size(path)
    start = time.perf_counter()
    image = read_image(path)
    result = model.predict([image], words.vocabulary, num_kept=int(num_kept))[0]
    seconds = time.perf_counter() - start
    scale = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    shown = result.resized((max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))
    labels = words.labels(shown)
    note = f"{seconds:.2f} s on {model.device.type}; {len(result.kept)} of {len(words.vocabulary)} classes kept."
    masks, color_map = annotations(labels, words)
    small = Image.fromarray(image).resize(labels.shape[::-1])
    return gr.AnnotatedImage((small, masks), color_map=color_map), note, kept_rows(shown, labels)


def check_size(path: str) -> None:
    """Look at an image's header.

    Raises:
        ImageReadError: it is not an image, or has more pixels than this page takes.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageReadError(f"{path}: is not an image in a format that can be read, or too large") from error
    if width * height > MAX_PIXELS:
        raise ImageReadError(
            f"{path}: has {width}×{height} pixels; this page takes up to {MAX_PIXELS // 10**6} million"
        )


def annotations(labels: np.ndarray, words: Words) -> tuple[list[tuple[np.ndarray, str]], dict[str, str]]:
    """Turn labels (h, w) into each class's mask (h, w) and legend entry, largest first, and the entries' colours."""
    colors = class_colors(words.vocabulary)
    masks, color_map = [], {}
    for index, share in area_shares(labels, len(words.classes)):
        entry = f"{first_synonym(words.classes[index])} {share:.1%}"
        masks.append(((labels == index).astype(np.float32) * OPACITY, entry))
        color_map[entry] = "#" + bytes(colors[index]).hex()
    nothing = float((labels == NOTHING).mean())
    if nothing > 0:
        entry = f"none of these {nothing:.1%}"
        masks.append((np.zeros(labels.shape, dtype=np.float32), entry))
        color_map[entry] = "#ffffff"
    return masks, color_map


def kept_rows(result: Segmentation, labels: np.ndarray) -> list[list[str]]:
    """List the kept classes, the highest CRM score first: name, score, share and mean probability where it is seen."""
    scores, best = result.class_scores.cpu(), result.scores.cpu().numpy()
    rows = []
    for index in sorted(result.kept.tolist(), key=lambda i: (-scores[i].item(), i)):
        mine = labels == index
        probability = f"{best[mine].mean():.2f}" if mine.any() else ""
        rows.append(
            [first_synonym(result.vocabulary[index]), f"{scores[index]:.1f}", f"{mine.mean():.1%}", probability]
        )
    return rows
