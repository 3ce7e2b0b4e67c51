"""The rule that fills the golden references' weights and inputs: a tensor is a function of its name and shape."""

import zlib

import numpy as np
import torch


def synthetic(name: str, shape) -> torch.Tensor:
    shape = tuple(shape)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    noise = np.asarray(noise, dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if name.endswith("logit_scale"):
        value = np.full((), np.log(100.0))
    elif leaf == "gamma":
        value = 0.1 + 0.02 * noise
    elif leaf == "bias" or leaf.endswith("_bias"):
        value = 0.02 * noise
    elif len(shape) == 1:
        value = 1.0 + 0.1 * noise
    elif name.endswith("token_embedding.weight"):
        value = 0.02 * noise
    elif name.endswith("positional_embedding"):
        value = 0.01 * noise
    else:
        value = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))
