"""A picture of one scene asked for a word that it shows, for one that it does not, and for a class by example."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from err_seg import Exemplar
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.models import hub
from err_seg.utils.images import save_image
from err_seg.visualization.grid import GridRow, lay_out
from tools.studies import study_parser

SCENE = Path("docs/scene.png")
PRESENT, ABSENT, SHOWN = "yellow star", "green circle", "this"
EXAMPLES, LEAST_PIXELS, SIDE = 5, 200, 220


def draw_examples(name: str) -> list[Exemplar]:
    """Return a few validation scenes that show a class, with its masks."""
    scenes, label, found = MiniScenes("val", length=1000), VOCABULARY.index(name), list[Exemplar]()
    for sample in (scenes[index] for index in range(len(scenes))):
        mask = sample.label == label
        if mask.sum() >= LEAST_PIXELS and len(found) < EXAMPLES:
            found.append(Exemplar(sample.image, mask))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    options = study_parser("one_word", __doc__).parse_args(argv)
    model, scene = hub.load("mini"), Image.open(SCENE).convert("RGB")
    shown = model.vocabulary_with_examples([], {SHOWN: draw_examples(PRESENT)}, use_names=False)
    asked = {f"“{PRESENT}”": [PRESENT], f"“{ABSENT}”": [ABSENT], f"{EXAMPLES} examples, no word": shown}
    rows = []
    for contrast in ("none", "common"):
        results = [model.predict(scene, words, contrast=contrast) for words in asked.values()]
        panels = [scene, *(result.plot(names=False, legend=False) for result in results)]
        rows.append(GridRow([panel.resize((SIDE, SIDE)) for panel in panels], [[]]))
    grid = lay_out([["the image"], *([title] for title in asked)], rows, "Above: alone. Below: with contrast.", SIDE)
    save_image(grid, options.output / "one_word.png")
    print(options.output / "one_word.png")


if __name__ == "__main__":
    main()
