"""The data sets: one declaration each, found by name.

Your own data set takes one call, from any code that runs before the data set is asked for::

    from err_seg.data import register, spec_from_dict

    register(spec_from_dict({
        "name": "my_streets_val",
        "image_dir": "my_streets/images/val",
        "label_dir": "my_streets/labels/val",
        "vocabulary": ["road", "building, house", "sky"],
    }))

or an entry in a configuration file, with the same keys::

    DATASETS:
      CUSTOM:
        - name: my_streets_val
          image_dir: my_streets/images/val
          label_dir: my_streets/labels/val
          vocabulary: my_streets/classes.txt
          ignore_label: 255

Keys are the attributes of :class:`~err_seg.data.spec.DatasetSpec`. Beyond these:

- ``vocabulary``: also the name of a vocabulary, or a file of names (:mod:`err_seg.text.vocabularies`)
- ``seen``: the same; of a vocabulary those names count whose first synonym is one here
- ``ignore_label``: also a list of values; all become the first
- ``label_map``: what values mean, {7: road, 0: ignore} or {road: 7, sky: [23, 24], ignore: 0}. Classes are given by
  name, first synonym or index; ``others`` is the meaning of all further values, which are errors otherwise
- ``palette``: the same with colours for values, {road: [128, 64, 128]}; or a list of colours in label order
- ``reduce_zero_label``: true: 0 is ignored, and 1 to N are the classes

Either way ``my_streets_val`` is then a name like the built-in ones. Of these, "mini_world_train", "mini_world_val" and
"mini_world_test" need no files: they are drawn on first use; "mini_world_test_24" has 24 scenes.

Relative folders lie under the data sets' root, see :func:`err_seg.data.spec.datasets_root`. A label map holds, at each
pixel, the index of a class of the vocabulary, or the ignore label.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module, resources
from typing import Any

import yaml

from err_seg.data.spec import DatasetError, DatasetSpec, spec_from_dict
from err_seg.text.vocabularies import expand_names
from err_seg.utils.messages import did_you_mean


class Catalog:
    """Data sets by name and alias.

    Args:
        specs: the first data sets.
        families: names of modules that declare further data sets by their names: ``named(name)`` returns one, or
            ``None`` for other names, and ``LISTED`` are the names that a list shows. They are imported when a name is
            first looked up, so that they can import this package.
    """

    def __init__(self, specs: Iterable[DatasetSpec] = (), families: Iterable[str] = ()) -> None:
        self._specs: dict[str, DatasetSpec] = {}
        self._families: tuple[str, ...] = ()
        for spec in specs:
            self.register(spec)
        self._families = tuple(families)  # only now: what it builds on may be what is importing this

    def register(self, spec: DatasetSpec) -> DatasetSpec:
        """Add a data set and return it; adding the same one again changes nothing.

        Raises:
            DatasetError: its name or an alias belongs to a data set that is declared differently.
        """
        for name in (spec.name, *spec.aliases):
            try:
                present = self._find(name) or spec
            except DatasetError:  # of a package that is not installed
                present = spec
            if present != spec:
                differing = [f.name for f in fields(spec) if getattr(spec, f.name) != getattr(present, f.name)]
                raise DatasetError(
                    f"the data set name {name!r} is taken by {present.name!r}, which differs in "
                    f"{', '.join(differing)}; choose another name"
                )
        self._specs.update(dict.fromkeys((spec.name, *spec.aliases), spec))
        return spec

    def unregister(self, name: str) -> None:
        """Remove a data set, by its name or an alias, with all its names.

        Raises:
            DatasetError: there is none of that name.
        """
        spec = self.get(name)
        self._specs = {key: value for key, value in self._specs.items() if value != spec}

    def get(self, name: str) -> DatasetSpec:
        """The data set of that name or alias.

        Raises:
            DatasetError: there is none of that name; the message lists those that there are.
        """
        spec = self._find(name)
        if spec is None:
            known = [*self._specs, *self.names()]
            hint = did_you_mean(name, known, "declare one of your own under DATASETS.CUSTOM.")
            raise DatasetError(f"unknown data set {name!r}; {hint} Registered: {', '.join(self.names())}")
        return spec

    def names(self) -> tuple[str, ...]:
        """Names, without aliases, in the order of registration, then those that the family lists."""
        listed = (name for family in self._families for name in import_module(family).LISTED)
        return tuple(dict.fromkeys([*(spec.name for spec in self._specs.values()), *listed]))

    def _find(self, name: str) -> DatasetSpec | None:
        found = (import_module(family).named(name) for family in self._families)
        return self._specs.get(name) or next(filter(None, found), None)


def published() -> Iterator[DatasetSpec]:
    """Yield the data sets of the published benchmarks, which ``tables/benchmarks.yaml`` declares."""
    table = resources.files(__package__) / "tables" / "benchmarks.yaml"
    entries = yaml.safe_load(table.read_text(encoding="utf-8"))
    return (spec_from_dict({**entry, "vocabulary": expand_names(entry["vocabulary"])}) for entry in entries)


CATALOG = Catalog(published(), families=("err_seg.mini.files", "err_seg.data.mess"))
"""The default catalog; its methods are functions of the package."""
register, unregister, get_dataset, dataset_names = CATALOG.register, CATALOG.unregister, CATALOG.get, CATALOG.names


def register_entries(entries: Iterable[Mapping[str, Any]]) -> None:
    """Register the data sets that a configuration declares on the spot, ``cfg.DATASETS.CUSTOM``."""
    for entry in entries:
        register(spec_from_dict(entry))


def find_dataset(name: str, entries: Iterable[Mapping[str, Any]]) -> DatasetSpec:
    """The data set that a configuration means by a name: of its own entries, else of the default catalog.

    The ``entries`` are as for :func:`register_entries`, but are not registered.

    Raises:
        DatasetError: there is none of that name, or its entry is wrong.
    """
    own = Catalog(spec_from_dict(entry) for entry in entries)
    return own.get(name) if name in own.names() else get_dataset(name)
