"""Writing the network as ONNX, as a program of torch.export or compiled, and vocabularies for it."""

import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from err_seg.export.half import products_to_half
from err_seg.export.network import INPUTS, OUTPUTS, ExportableERRSeg, example_inputs
from err_seg.models.checkpoint import reason_of
from err_seg.prediction.contrast import NONE, Contrast
from err_seg.prediction.model import ERRSeg
from err_seg.text.vocabularies import VocabularySource
from err_seg.utils.errors import RunError
from err_seg.utils.files import atomic_write
from err_seg.utils.fingerprint import RESULT_FORMAT, weights_digest

EXAMPLE_CLASSES, EXAMPLE_KEPT = 13, 6
LARGEST_BATCH, LARGEST_SIDE, LARGEST_VOCABULARY = 4096, 32768, 65536
OPSET = 20
FACTS = "err_seg.json"  # inside the archive that a .pt2 file is


class ExportError(RunError):
    """The network cannot be exported, or not on this machine; the message says why."""


def trace(model: ERRSeg, device: str = "cpu") -> ExportedProgram:
    """Turn the network into a graph that takes any image size, T and K (see the inputs of ``ExportableERRSeg``)."""
    if model.training or model.device.type != device or model.pixel_mean.dtype != torch.float32:
        raise ExportError("export needs the model on the CPU, in float32 and evaluation mode; the file runs anywhere")
    network = ExportableERRSeg(model).eval()
    batch = {} if model.head.crm.is_adaptive else {0: Dim("batch", min=1, max=LARGEST_BATCH)}
    shapes: dict[str, Any] = {
        "image": {2: Dim("height", min=2, max=LARGEST_SIDE), 3: Dim("width", min=2, max=LARGEST_SIDE), **batch},
        "text": {0: Dim("classes", min=1, max=LARGEST_VOCABULARY)},
        "ranks": {0: Dim("kept", min=1, max=LARGEST_VOCABULARY)},
    }
    with torch.no_grad(), _exporter():
        inputs = tuple(t.to(model.device) for t in example_inputs(model, EXAMPLE_CLASSES, EXAMPLE_KEPT))
        return torch.export.export(network, inputs, dynamic_shapes=shapes, strict=False)


def export_program(model: ERRSeg, file: Path, *, compiled: bool = False) -> None:
    """Write a ``.pt2`` file that ``torch.export.load`` reads, complete or not at all.

    Compiled, it is machine code of AOTInductor for the model's device, which ``torch._inductor.aoti_load_package``
    runs. It does not look at strides, and is wrong for tensors that are not contiguous.

    Raises:
        ExportError: the model is not on the CPU; compiled: no C++ compiler, or K is up to each image.
    """
    if compiled and model.head.crm.is_adaptive:
        raise ExportError("AOTInductor cannot leave K to the image: add --opts MODEL.CRM.MIN_SCORE 0 to keep K classes")
    program = trace(model, model.device.type if compiled else "cpu")
    with _exporter(), atomic_write(file) as partial, TemporaryDirectory() as folder:
        if not compiled:
            with open(partial, "wb") as stream:
                torch.export.save(program, stream, extra_files={FACTS: json.dumps(facts(model))})
            return
        package = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/network.pt2")
        with zipfile.ZipFile(package, "a") as archive:
            archive.writestr(f"network/extra/{FACTS}", json.dumps(facts(model, compiled_for=model.device.type)))
        shutil.copyfile(package, partial)


def export_onnx(model: ERRSeg, file: Path, precision: str = "fp32") -> None:
    """Write an ONNX file that contains all weights but the text tower's, complete or not at all.

    The precision is "fp32", or "fp16" (see :mod:`err_seg.export.half`).

    Raises:
        ExportError: ``onnx`` or ``onnxscript`` is not installed, the model is not on the CPU or not in evaluation mode,
            or its weights are beyond the range of the precision.
    """
    _check_installed("onnx", "onnxscript")
    traced = trace(model)
    with _exporter():
        program = torch.onnx.export(
            traced,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )
        assert program is not None
        if precision == "fp16":
            products_to_half(program.model)
    program.model.metadata_props.update({key: str(value) for key, value in facts(model, precision).items()})
    with atomic_write(file) as partial:
        program.save(str(partial))


def _stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Sort in ONNX by its TopK, which leaves equal values in the order of their indices, as a stable sort does."""
    from onnxscript import opset20 as op

    length = op.Shape(values, start=dim, end=dim + 1)
    return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


def facts(model: ERRSeg, precision: str = "fp32", compiled_for: str = "none") -> dict[str, Any]:
    """Return what an exported file says about itself: its inputs and outputs, its settings and its weights."""
    batch = 1 if model.head.crm.is_adaptive else "B"
    return {
        "network": "ERR-Seg",
        "inputs": f"image ({batch}, 3, H, W) float32 RGB 0..255; text (T, D) float32 unit vectors; ranks 0..K-1 int64",
        "outputs": f"probabilities ({batch}, K, S/4, S/4) float32; kept ({batch}, K) int64 indices into text",
        "embedding_dim": model.encoder.embedding_dim,
        "fewest_classes": 1,  # more in files of earlier versions
        "num_kept": model.num_kept or 0,
        "min_score": model.head.crm.min_score,
        "size": model.size,
        "precision": precision,
        "compiled_for": compiled_for,  # a device
        "weights": weights_digest(model),
        "source": str(model.source or ""),
        "format": RESULT_FORMAT,
    }


def check_facts(model: ERRSeg, file: Path, precision: str = "fp32", compiled_for: str = "none") -> None:
    """Check that a file was exported from this network, in this precision and for this device.

    Raises:
        ExportError: it has other weights or settings, does not say which, or cannot be read; names the file.
    """
    found = {"precision": "fp32", "compiled_for": "none", **_facts_in(file)}  # absent in files of earlier versions
    expected = {key: str(value) for key, value in facts(model, precision, compiled_for).items()}
    del expected["source"]  # the same weights may come from elsewhere
    for key in ("weights", *expected):
        if found.get(key) != expected[key]:
            was = f"is {expected[key]} now and was {found[key]}" if key in found else "is not noted in it"
            raise ExportError(
                f"{file} already exists and was exported from another network, or by another version ({key} {was}), "
                "so its text embeddings would not match. Write to another file, or replace both with --force"
            )


def _facts_in(file: Path) -> dict[str, str]:
    """Read the :func:`facts` that an exported file holds."""
    try:
        if file.suffix == ".onnx":
            _check_installed("onnx")
            import onnx

            return {entry.key: entry.value for entry in onnx.load(file, load_external_data=False).metadata_props}
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(f"/{FACTS}")]
            return {key: str(value) for key, value in json.loads(archive.read(name)).items()}
    except ExportError:
        raise
    except Exception as error:  # each reader raises its own
        raise ExportError(f"{file} already exists and is not an exported network; --force replaces it") from error


def save_vocabulary(model: ERRSeg, names: Sequence[str], file: Path, contrast: VocabularySource = NONE) -> Contrast:
    """Write class names and text embeddings, which an exported network takes as input, as ``.npz``.

    The file, complete or absent, holds ``names`` (T,) and ``contrast`` (C,) text, see ``ERRSeg.predict_stream``;
    ``text`` (T + C, D) float32 unit vectors, of ``contrast`` the last C: pixels that these win belong to none of
    ``names``; and ``weights``, the digest of the weights that computed the vectors, without which they mean nothing.

    Returns:
        The contrast names.

    Raises:
        VocabularyError: the network cannot read the names or the contrast.
    """
    text, found = model.embed_with_contrast(names, contrast)
    arrays: dict[str, Any] = {"contrast": np.array(found.names, dtype=str), "text": text.float().cpu().numpy()}
    with atomic_write(file) as partial, open(partial, "wb") as stream:
        np.savez(stream, names=np.array(names), weights=np.array(weights_digest(model)), **arrays)
    return found


def _check_installed(*libraries: str) -> None:
    if lacking := [name for name in libraries if find_spec(name) is None]:
        raise ExportError(f"ONNX needs {' and '.join(lacking)}: pip install 'err_seg[export]'")


@contextmanager
def _exporter() -> Iterator[None]:
    """Hide the exporters' messages about their internals, and turn their errors into one kind."""
    with warnings.catch_warnings(), ExitStack() as restored:
        warnings.simplefilter("ignore")
        for logger in map(logging.getLogger, ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")):
            restored.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        try:
            yield
        except Exception as error:
            raise ExportError(f"this torch cannot export this network: {reason_of(error)}") from error
