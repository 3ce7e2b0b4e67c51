"""Vocabularies with rows as files: small, to be shared, and only for the weights that they name."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from err_seg.text.prompts import TextRow, Vocabulary, VocabularyError, check_vocabulary
from err_seg.utils.files import atomic_write

ROWS_ENDING = ".safetensors"
_FORMAT = "err_seg vocabulary 1"


def save_vocabulary(vocabulary: Vocabulary, file: str | Path) -> None:
    """Write names, their colours and the rows of those that were shown by example, complete or not at all.

    A model with other weights refuses the file. Whatever takes a vocabulary takes its path.

    Args:
        vocabulary: what :meth:`err_seg.ERRSeg.vocabulary_with_examples` returns.
        file: a path that ends in ".safetensors".

    Raises:
        VocabularyError: another ending, names that cannot be used, or none of them has a row.
        OSError: the file cannot be written.
    """
    names = check_vocabulary(vocabulary)
    rows = {name: names.rows[name] for name in names if name in names.rows}
    if not rows or Path(file).suffix.lower() != ROWS_ENDING:
        raise VocabularyError(
            f"{file}: expected a path that ends in {ROWS_ENDING}, and a vocabulary with examples; names alone may be "
            "written to a .txt or .json file"
        )
    facts = {"names": names, "colors": names.colors, "rows": {name: row[2:] for name, row in rows.items()}}
    with atomic_write(file) as partial:
        vectors = torch.stack([torch.stack(row[:2]) for row in rows.values()])  # (R, 2, D)
        save_file({"rows": vectors}, partial, metadata={"format": _FORMAT, "vocabulary": json.dumps(facts)})


def read_rows(file: Path) -> Vocabulary:
    """Read a file of :func:`save_vocabulary`; nothing in it is executed.

    Raises:
        VocabularyError: no such file, another kind of file, or a damaged one.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise VocabularyError(
                    f"{file}: is no vocabulary of err_seg.save_vocabulary, but another {ROWS_ENDING} file; weights are "
                    "given as the model"
                )
            vectors, facts = stored.get_tensor("rows").clone(), json.loads(metadata["vocabulary"])
        colors = {key: (int(r), int(g), int(b)) for key, (r, g, b) in facts["colors"].items()}
        origins = {str(name): (str(weights), str(origin)) for name, (weights, origin) in facts["rows"].items()}
        is_unit = vectors.dtype == torch.float32 and (vectors[:, 0].norm(dim=1) - 1).abs().max() < 1e-3
        fits = vectors.shape[:2] == (len(origins), 2) and origins.keys() <= set(facts["names"])
        if not (is_unit and fits and vectors.isfinite().all()):
            raise ValueError("its rows are not unit vectors of its names")
    except FileNotFoundError as error:
        raise VocabularyError(f"no vocabulary file at {file.absolute()}") from error
    except VocabularyError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise VocabularyError(f"{file}: is damaged or no vocabulary ({error}); fetch or write it again") from error
    pairs = zip(origins.items(), vectors, strict=True)
    rows = {name: TextRow(vector, meaning, *facts) for (name, facts), (vector, meaning) in pairs}
    return Vocabulary(facts["names"], colors, rows)
