"""Label maps as GeoTIFF, at the location of their image: ``pip install "err_seg[geo]"``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from err_seg.utils.files import atomic_write
from err_seg.visualization.colors import class_colors
from err_seg.visualization.label_files import stored_labels


class GeoreferenceError(ValueError):
    """An image that is not georeferenced; the message names it."""


def write_geotiff(labels: np.ndarray, names: Sequence[str], source: str, path: Path) -> None:
    """Write a label map with the coordinate system and the location of its image, complete or not at all.

    Args:
        labels: (H, W) integers; negative ones (no class) become "no data": 255, or 65535 in 16 bits.
        names: of the classes; up to 255 are written in 8 bits and with their colours.
        source: the image, a georeferenced file; its corners are those of the label map.
        path: the file to write.

    Raises:
        GeoreferenceError: the image is not a georeferenced file.
        OSError: the file cannot be written.
    """
    import rasterio

    if not Path(source).is_file():
        raise GeoreferenceError(f"{source}: is not a file and so not georeferenced; write --format labels instead")
    try:
        with rasterio.open(source) as image:
            crs, transform, size = image.crs, image.transform, (image.height, image.width)
    except rasterio.errors.RasterioIOError as error:
        raise GeoreferenceError(f"{source}: cannot be read as a map ({error})") from error
    if crs is None:
        raise GeoreferenceError(f"{source}: is not georeferenced; write --format labels instead")
    height, width = labels.shape
    transform = transform * transform.scale(size[1] / width, size[0] / height)
    stored = stored_labels(labels, labels < 0, len(names), path)
    profile = {
        **{"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": stored.dtype, "crs": crs},
        **{"transform": transform, "nodata": np.iinfo(stored.dtype).max, "compress": "deflate", "tiled": True},
    }
    with atomic_write(path) as temporary, rasterio.open(temporary, "w", **profile) as file:
        file.write(stored, 1)
        file.update_tags(1, **{f"CLASS_{label}": name for label, name in enumerate(names)})
        if stored.dtype == np.uint8:
            file.write_colormap(1, {label: tuple(color) for label, color in enumerate(class_colors(names).tolist())})
