"""Run an exported network without err_seg: python run_exported.py err_seg.onnx err_seg.npz photo.jpg [labels.png]

Needs onnxruntime, numpy and Pillow. tools/export.py err_seg.onnx --classes "cat, sofa, wall" makes the first two files.
"""

import argparse
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("network", help="what tools/export.py wrote, .onnx")
parser.add_argument("vocabulary", help="and the words for it, .npz")
parser.add_argument("photo")
parser.add_argument("labels", nargs="?", default="labels.png", help="where the labels go (labels.png)")
arguments = parser.parse_args()

session = onnxruntime.InferenceSession(arguments.network, providers=onnxruntime.get_available_providers())
facts = session.get_modelmeta().custom_metadata_map
file = np.load(arguments.vocabulary)
names, text = file["names"], file["text"]  # T names; contrast words, if there are any, have the rows after these
if "weights" not in file or str(file["weights"]) != facts.get("weights"):
    sys.exit(f"error: {arguments.vocabulary} was written for other weights than {arguments.network}; export both anew")

photo = ImageOps.exif_transpose(Image.open(arguments.photo)).convert("RGB")  # upright
image = np.asarray(photo, dtype=np.float32).transpose(2, 0, 1)[None]  # 1×3×H×W, RGB in 0..255
ranks = np.arange(min(int(facts["num_kept"]) or len(text), len(text)))  # how many classes the image may show
probabilities, kept = session.run(None, {"image": image, "text": text, "ranks": ranks})  # of one image each

maps = [np.asarray(Image.fromarray(p).resize(photo.size, Image.Resampling.BILINEAR)) for p in probabilities[0]]
labels = kept[0, np.argmax(maps, axis=0)]  # H×W, rows of text
labels[labels >= len(names)] = -1  # a contrast word: none of the names
for index, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
    print(f"{names[index] if index >= 0 else 'other'}: {pixels / labels.size:.1%}")
Image.fromarray(labels.astype(np.uint16)).save(arguments.labels)  # 65535 is other
