"""Run an exported network without err_seg: python run_exported.py err_seg.onnx err_seg.npz photo.jpg

Needs onnxruntime, numpy and Pillow. tools/export.py err_seg.onnx --classes "cat, sofa, wall" makes the first two files.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

network, vocabulary, photo = sys.argv[1:]
session = onnxruntime.InferenceSession(network, providers=onnxruntime.get_available_providers())
file = np.load(vocabulary)
names, text = file["names"], file["text"]
most = int(session.get_modelmeta().custom_metadata_map["num_kept"]) or len(names)

picture = Image.open(photo).convert("RGB")
image = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)[None]  # 1×3×H×W, RGB in 0..255
ranks = np.arange(min(most, len(names)))  # how many classes the picture may show
probabilities, kept = session.run(None, {"image": image, "text": text, "ranks": ranks})

maps = [np.asarray(Image.fromarray(p).resize(picture.size, Image.Resampling.BILINEAR)) for p in probabilities]
labels = kept[np.argmax(maps, axis=0)]  # H×W, index into names
for index, pixels in zip(*np.unique(labels, return_counts=True), strict=True):
    print(f"{names[index]}: {pixels / labels.size:.1%}")
Image.fromarray(labels.astype(np.uint16)).save("labels.png")
