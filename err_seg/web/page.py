"""The page: its parts, and what happens when its button is pressed."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import gradio as gr
from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, create_model

from err_seg.data import ImageReadError
from err_seg.jobs.label_set import LabelSetError
from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import VocabularyError
from err_seg.text.vocabularies import vocabularies
from err_seg.utils.validation import ArgumentError
from err_seg.web.browser import CHOOSE, KEEP, REDRAW, RESTORE, RESULT, SAMPLES, SHOW
from err_seg.web.drawing_widget import drawing_widget
from err_seg.web.example_widget import example_widget
from err_seg.web.files import PERCENT, Downloads, NoSuchUpload, Uploads
from err_seg.web.guard import LABEL, SAMPLE, Event, EventKinds, UploadedImage
from err_seg.web.labelling import Answer, label_upload

MOST_KEPT = 64
WAITING = 16
MINUTE = 60
INITIAL_NAMES = "the initial class names"
HINT = f"<p>For class names that this model can encode, choose “{INITIAL_NAMES}” under “Vocabularies”.</p>"
Share: TypeAlias = Annotated[StrictFloat, Field(ge=0, le=1)]
File: TypeAlias = UploadedImage | None
NumKept: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MOST_KEPT)]


def build_page(
    model: ERRSeg, classes: str, uploads: Uploads, downloads: Downloads, samples: Sequence[Path] = ()
) -> gr.Blocks:
    """Lay the page out, see :func:`~err_seg.web.server.create_app`; the samples are some of the uploads."""
    page = gr.Blocks(title="ERR-Seg", analytics_enabled=False, delete_cache=(10 * MINUTE, 60 * MINUTE))
    with page:
        gr.Markdown("# ERR-Seg\nSegment any image with any list of class names.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                upload = gr.Image(type="filepath", sources=["upload", "clipboard"], label="Image", height=300)
                upload.preprocess = lambda sent: sent and sent.path  # Gradio would decode it, with its own errors
                if samples:
                    paths = [[str(path)] for path in samples]
                    gr.Examples(paths, [upload], label="Samples", cache_examples=False, elem_id=SAMPLES)
                with gr.Accordion("Draw an image", open=False):
                    drawing_widget(upload)
                with gr.Accordion("A class by example", open=False):
                    example = example_widget(upload)
                names = class_names(classes)
                button = gr.Button("Label the image", variant="primary")
                with gr.Accordion("Settings", open=False):
                    inputs = [upload, names, *settings(model.num_kept or MOST_KEPT), *example]
            with gr.Column(scale=3, min_width=320, elem_id=RESULT):
                strength, *outputs = results()

        def label_image(path: str | None, *values: Any) -> Answer:
            *given, name, example, mask = values
            try:
                image, shown, marked = (uploads.find(file) if file else None for file in (path, example, mask))
                return label_upload(model, downloads, image, *given, example=(name, shown, marked))
            except (ArgumentError, ImageReadError, NoSuchUpload, VocabularyError, LabelSetError) as error:
                message = str(error) if path is None else str(error).replace(path, Path(path).name)
                hint = HINT if isinstance(error, VocabularyError) else ""
                return Answer(f'<p role="alert">⚠ {escape(message)}</p>{hint}')

        note, pair, *_, links = outputs
        answered = button.click(
            label_image, inputs, outputs, js=SHOW, show_progress_on=note, concurrency_limit=1, api_name=LABEL
        )
        parts, again = [*inputs, strength, *outputs], {"trigger_mode": "always_last", "api_visibility": "private"}
        redraw = {"fn": None, "inputs": [pair, links, strength], "outputs": [pair, links], "js": REDRAW, **again}
        answered.then(**redraw).then(None, js=SHOW, api_visibility="private")
        strength.change(**redraw)
        gr.on([part.change for part in parts], None, parts, None, js=KEEP, **again)
        page.load(None, parts, parts, js=RESTORE, api_visibility="private")
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def class_names(classes: str) -> gr.Textbox:
    """Lay out the field for class names, and a list of vocabularies that fills it."""
    info = "with commas between, or one a line; the name of a vocabulary stands for its names, auto for common names"
    names = gr.Textbox(classes, label="Classes", info=info, lines=3, max_lines=8)
    sizes = [(f"{name}: {size} names", name) for name, size in vocabularies().items()]
    known = gr.Dropdown(
        [(INITIAL_NAMES, classes), *sizes],
        value=None,
        label="Vocabularies",
        info="choose one in the place of these names",
    )
    known.input(None, [known, names], [names, known], js=CHOOSE, api_visibility="private")
    return names


def settings(num_kept: int) -> list[gr.components.Component]:
    """Lay out the settings that a first try leaves alone."""
    background = gr.Textbox("", label="None of these", info="further names; their pixels stay unpainted")
    threshold = gr.Slider(0, 1, 0, step=0.01, label="Least probability", info="below it: none of these")
    kept = gr.Slider(1, MOST_KEPT, num_kept, step=1, label="Classes kept (K)")
    with_names = gr.Checkbox(True, label="Names on the regions")
    info = "what is none of a few classes stays unpainted, since many other names compete with them"
    contrast = gr.Checkbox(True, label="Contrast", info=info)
    return [background, threshold, kept, with_names, contrast]


def results() -> list[gr.components.Component]:
    """Lay out a slider for the overlay, and what :class:`~err_seg.web.labelling.Answer` fills."""
    note = gr.HTML("The labels will appear here.")
    with gr.Tab("Image and labels"):
        pair = gr.ImageSlider(label="Move the line", interactive=False, buttons=["fullscreen"], slider_position=25)
    with gr.Tab("Class by class"):
        parts = gr.AnnotatedImage(label="Point at a class to see it alone", buttons=["fullscreen"])
    strength = gr.Slider(0, 100, PERCENT, step=5, label="Strength of the colours (%)")
    links = gr.HTML()
    areas = gr.Dataframe(headers=["class", "share", "prob."], label="Areas and mean probabilities", interactive=False)
    kept = gr.Dataframe(headers=["class", "CRM score"], label="Kept classes", interactive=False)
    return [strength, note, pair, parts, areas, kept, links]


def event_kinds(page: gr.Blocks, num_samples: int) -> EventKinds:
    """Return the page's events: their numbers, and the types and ranges of their fields, as laid out above."""
    numbers = {event["api_name"]: event["id"] for event in page.config["dependencies"]}
    settings = tuple[File, StrictStr, StrictStr, Share, NumKept, StrictBool, StrictBool, StrictStr, File, File]
    fields: dict[str, Any] = {LABEL: settings}
    if num_samples:
        fields[SAMPLE] = tuple[Annotated[StrictInt, Field(ge=0, lt=num_samples)]]
    return {name: (numbers[name], create_model(name, __base__=Event, data=data)) for name, data in fields.items()}
