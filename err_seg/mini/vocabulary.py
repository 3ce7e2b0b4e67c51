"""The sixty classes of the miniature world, the words in them, and which of them are seen in training."""

from err_seg.mini.shapes import OBJECT_COLOURS, SHAPES, TEXTURES, WALL_COLOURS

_OBJECTS = [(colour, shape) for colour in OBJECT_COLOURS for shape in SHAPES]
_WALLS = [(colour, texture) for colour in WALL_COLOURS for texture in TEXTURES]
ATTRIBUTES: tuple[tuple[str, str], ...] = (*_OBJECTS, *_WALLS)
"""(colour, shape) of the 48 objects, then (colour, texture) of the 12 walls: the classes in label order."""

OBJECTS: tuple[int, ...] = tuple(range(len(_OBJECTS)))
"""Indices of the objects; all other classes are walls."""

VOCABULARY: tuple[str, ...] = (
    *(f"{colour} {shape}" for colour, shape in _OBJECTS),
    *(f"{colour} {texture} wall" for colour, texture in _WALLS),
)
"""Their names."""

NEW_WORDS: tuple[str, ...] = (list(OBJECT_COLOURS)[-1], list(SHAPES)[-1], list(TEXTURES)[-1])
"""The words that no class seen in training has: "purple", "ring", "dotted"."""

PROMPTS: tuple[str, ...] = (
    "A photo of a {} in the scene",
    "A photo of a {}",
    "A picture of a {}",
    "There is a {} in the picture",
    "A {}",
)
"""Captions of the crops; the first is the segmentation model's own prompt."""

WORDS: tuple[str, ...] = tuple(
    sorted({word.lower() for text in (*PROMPTS, *VOCABULARY) for word in text.split()} - {"{}"})
)
"""Every word of the class names and the captions, lower case, sorted."""


def _trained_on(index: int) -> bool:
    """Whether a class is seen. Every word but the new ones is in two or more seen classes and in an unseen one."""
    colour, kind = ATTRIBUTES[index]
    if colour in NEW_WORDS or kind in NEW_WORDS:
        return False
    if index < len(_OBJECTS):  # three shapes for one colour, two for the next, starting two shapes further each time
        row, column = list(OBJECT_COLOURS).index(colour), list(SHAPES).index(kind)
        return (column - 2 * row) % (len(SHAPES) - 1) < 3 - row % 2
    row, column = list(WALL_COLOURS).index(colour), list(TEXTURES).index(kind)
    return (column - row) % (len(TEXTURES) - 1) < 2


SEEN: tuple[int, ...] = tuple(i for i in range(len(VOCABULARY)) if _trained_on(i))
"""Indices of the 24 classes that segmentation training sees: 18 objects, 6 walls."""

UNSEEN: tuple[int, ...] = tuple(i for i in range(len(VOCABULARY)) if i not in SEEN)
"""The 36 others: ``UNSEEN_COMBINATIONS`` and ``UNSEEN_WORDS`` together."""

UNSEEN_WORDS: tuple[int, ...] = tuple(i for i in UNSEEN if set(ATTRIBUTES[i]) & set(NEW_WORDS))
"""Indices of the 16 classes that contain one of ``NEW_WORDS``."""

UNSEEN_COMBINATIONS: tuple[int, ...] = tuple(i for i in UNSEEN if i not in UNSEEN_WORDS)
"""Indices of the 20 classes whose words are all seen, though never together."""

CLASS_SETS: dict[str, tuple[int, ...]] = {"seen": SEEN, "all": tuple(range(len(VOCABULARY)))}
"""What scenes may be drawn from, in label order."""
