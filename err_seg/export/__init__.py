"""The network as one file, ONNX or torch.export, that runs without this package."""

from err_seg.export.exporting import ExportError, check_facts, export_onnx, export_program, save_vocabulary
from err_seg.export.network import ExportableERRSeg
from err_seg.export.parity import Parity, check_onnx, check_program

__all__ = [
    "ExportError",
    "ExportableERRSeg",
    "Parity",
    "check_facts",
    "check_onnx",
    "check_program",
    "export_onnx",
    "export_program",
    "save_vocabulary",
]
