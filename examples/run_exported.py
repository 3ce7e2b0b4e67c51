"""Run an exported network without err_seg: python run_exported.py err_seg.onnx err_seg.npz photo.jpg [labels.png]

Needs numpy and Pillow, and onnxruntime for .onnx or torch for .pt2 files. The first two files are made by
tools/export.py err_seg.onnx --classes "cat, sofa, wall"
"""

import argparse
import json
import sys
import zipfile
from typing import Any

import numpy as np
from PIL import Image, ImageOps

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("network", help="what tools/export.py wrote, .onnx or .pt2")
parser.add_argument("vocabulary", help="and the words for it, .npz")
parser.add_argument("photo")
parser.add_argument("labels", nargs="?", default="labels.png", help="where the labels go (labels.png)")
arguments = parser.parse_args()

if arguments.network.endswith(".onnx"):
    import onnxruntime

    session = onnxruntime.InferenceSession(arguments.network, providers=onnxruntime.get_available_providers())
    facts = session.get_modelmeta().custom_metadata_map

    def run(image: np.ndarray, text: np.ndarray, ranks: np.ndarray) -> list[np.ndarray]:
        """Run the network on arrays."""
        return session.run(None, {"image": image, "text": text, "ranks": ranks})
else:
    import torch

    with zipfile.ZipFile(arguments.network) as archive:
        facts = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("/err_seg.json"))))
    device = facts.get("compiled_for", "none")  # absent in files of earlier versions
    is_compiled = device != "none"
    network: Any = (
        torch._inductor.aoti_load_package(arguments.network)
        if is_compiled
        else torch.export.load(arguments.network).module()
    )

    def run(image: np.ndarray, text: np.ndarray, ranks: np.ndarray) -> list[np.ndarray]:
        """Run the network on arrays."""
        # a compiled network reads memory in this order without looking at strides
        inputs = [torch.from_numpy(array).contiguous() for array in (image, text, ranks)]
        with torch.no_grad():
            outputs = network(*(array.to(device) if is_compiled else array for array in inputs))
        return [output.cpu().numpy() for output in outputs]


file = np.load(arguments.vocabulary)
names, text = file["names"], file["text"]  # T names; contrast words, if there are any, have the rows after these
if "weights" not in file or str(file["weights"]) != facts.get("weights"):
    sys.exit(f"error: {arguments.vocabulary} was written for other weights than {arguments.network}; export both anew")

photo = ImageOps.exif_transpose(Image.open(arguments.photo)).convert("RGB")  # upright
image = np.asarray(photo, dtype=np.float32).transpose(2, 0, 1)[None]  # 1×3×H×W, RGB in 0..255
ranks = np.arange(min(int(facts["num_kept"]) or len(text), len(text)))  # how many classes the image may show
probabilities, kept = run(image, text, ranks)  # of one image each

maps = [np.asarray(Image.fromarray(p).resize(photo.size, Image.Resampling.BILINEAR)) for p in probabilities[0]]
labels = kept[0, np.argmax(maps, axis=0)]  # H×W, rows of text
labels[labels >= len(names)] = -1  # a contrast word: none of the names
for index, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
    print(f"{names[index] if index >= 0 else 'other'}: {pixels / labels.size:.1%}")
Image.fromarray(labels.astype(np.uint16)).save(arguments.labels)  # 65535 is other
