"""Colours as a viewer shows them: converted to sRGB from an image's colour profile, or by a PNG's exponent."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# differences of colours (in 0..255) and of exponents that are not worth a conversion
SAME_COLOR, SAME_EXPONENT = 2, 0.05


def with_srgb_colors(image: Image.Image) -> Image.Image:
    """Convert the colours of an image that has a profile or, if it has none, an exponent; alpha stays."""
    mode = "L" if image.mode in ("L", "LA") else "CMYK" if image.mode == "CMYK" else "RGB"
    exponent = 1 / (2.2 * (image.info.get("gamma") or 1 / 2.2))
    if transform := transform_to_srgb(image.info.get("icc_profile"), mode):
        converted = transform.apply(image.convert(mode))
    elif abs(exponent - 1) > SAME_EXPONENT and not {"icc_profile", "srgb"} & image.info.keys():
        converted = image.convert("RGB").point([round(255 * (value / 255) ** exponent) for value in range(256)] * 3)
    else:
        return image
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


@lru_cache(maxsize=16)
def transform_to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what converts images of a profile and mode; ``None`` if that changes next to nothing, or it is damaged."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ImportError):  # also one of another mode, or a Pillow without this
        return None
    cube = np.indices((18, 18, 18)).astype(np.uint8) * 15
    probe = Image.fromarray(cube.reshape(3, 18, 324).transpose(1, 2, 0)).convert(mode)
    change = np.asarray(transform.apply(probe)).astype(np.int16) - np.asarray(probe.convert("RGB"))
    return transform if np.abs(change).max() > SAME_COLOR else None
