"""CLIPSeg of transformers (Lüddecke and Ecker, CVPR 2022) as a predictor: a map for each word.

    pip install transformers
    err-seg evaluate --predictor examples/predictors/clipseg.py:CLIPSeg DATASETS.TEST "['ade20k_150_val']"

CLIPSEG_WEIGHTS names other weights: a folder, or a repository of the Hugging Face hub.
"""

import os

import numpy as np
import torch
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

WORDS_AT_A_TIME = 32


class CLIPSeg:
    """Compares an image with each word alone; the largest map wins."""

    def __init__(self) -> None:
        weights = os.environ.get("CLIPSEG_WEIGHTS", "CIDAS/clipseg-rd64-refined")
        self.settings = {"weights": weights}  # recorded with the results
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.processor = CLIPSegProcessor.from_pretrained(weights)
        self.model = CLIPSegForImageSegmentation.from_pretrained(weights).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, image: np.ndarray, names: list[str]) -> torch.Tensor:
        """Compute logits (N, 352, 352) of an image (H, W, 3), uint8 RGB, for N names."""
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"].to(self.device)
        words = [name.split(",")[0] for name in names]  # the first of several synonyms
        maps = []
        for start in range(0, len(words), WORDS_AT_A_TIME):
            some = words[start : start + WORDS_AT_A_TIME]
            text = self.processor(text=some, padding=True, return_tensors="pt").to(self.device)
            logits = self.model(pixel_values=pixels.expand(len(some), -1, -1, -1), **text).logits
            maps.append(logits.reshape(len(some), *logits.shape[-2:]))
        return torch.cat(maps)
