"""MESS: 22 data sets of five domains (Blumenstiel et al., 2023), as its package ``mess-benchmark`` prepares them.

A data set has the name that the package gives it, "bdd100k_sem_seg_val". Folders, class names and ignore labels are the
package's own; "background" and "others" are class names there like any other.
"""

import statistics
from collections.abc import Mapping
from importlib import import_module, resources
from pathlib import Path

import yaml

from err_seg.data.spec import DatasetError, DatasetSpec

IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")
OWN_ENDINGS = {
    "dark_zurich_sem_seg_val": ("_rgb_anon.png", "_gt_labelIds.png"),
    "cwfid_sem_seg_test": ("image.png", "annotation.png"),
}
"""The endings of images and label maps that are more than the type of the file."""

DOMAINS: dict[str, dict[str, str]] = yaml.safe_load(
    (resources.files("err_seg.data") / "tables" / "mess.yaml").read_text(encoding="utf-8")
)
"""Domain to data sets, each with its name in tables; the four of one name are averaged."""
LISTED = ()
"""None of these is listed with the other data sets, since their declarations need the package."""
_NAMES = {name for data_sets in DOMAINS.values() for name in data_sets}


def named(name: str) -> DatasetSpec | None:
    """Declare the data set of a name in :data:`DOMAINS`; ``None`` for other names.

    Raises:
        DatasetError: the package is not installed.
    """
    if name not in _NAMES:
        return None
    try:
        import_module("mess.datasets")
        module = import_module("mess.datasets.register_bdd100k")
    except ImportError as error:
        raise DatasetError(
            f"the data set {name!r} is of MESS, whose package could not be imported ({error}); install it with: "
            "pip install 'err_seg[mess]'"
        ) from error
    facts, root = module.MetadataCatalog.get(name), Path(module._root)  # where the package expects the data sets
    image_ext, label_ext = OWN_ENDINGS.get(name, (IMAGE_ENDINGS, ".png"))
    return DatasetSpec(
        name=name,
        image_dir=str(Path(facts.image_root).relative_to(root)),
        label_dir=str(Path(facts.sem_seg_root).relative_to(root)),
        vocabulary=tuple(facts.stuff_classes),
        image_ext=image_ext,
        label_ext=label_ext,
        ignore_label=facts.ignore_label,
    )


def mess_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """Average a metric over the data sets of each domain, and over all 22, as MESS's tables do.

    Args:
        metrics: data set to value; others than those of MESS do not count.

    Returns:
        Domain, and "MESS", to mean; NaN where a data set is missing; empty if none of them is there.
    """
    if _NAMES.isdisjoint(metrics):
        return {}
    means, all_values = {}, []
    for domain, data_sets in DOMAINS.items():
        by_title: dict[str, list[float]] = {}
        for name, title in data_sets.items():
            by_title.setdefault(title, []).append(metrics.get(name, float("nan")))
        values = [statistics.fmean(parts) for parts in by_title.values()]
        means[f"MESS, {domain}"] = statistics.fmean(values)
        all_values += values
    return means | {"MESS": statistics.fmean(all_values)}
