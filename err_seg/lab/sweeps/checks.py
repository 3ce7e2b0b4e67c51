"""Checks before anything is run, so that no sweep fails after hours for a reason known at its start."""

from collections.abc import Sequence

from err_seg.data import SegmentationPairs, find_dataset
from err_seg.lab.mini.evaluation import check_test_scenes, open_test_scenes
from err_seg.lab.sweeps.definition import Sweep, SweepError
from err_seg.lab.sweeps.plan import Run
from err_seg.lab.sweeps.plots import swept_values


def check_sweep(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Check that a sweep's runs can be made, and that its table and its plot can be made from them.

    Raises:
        SweepError: a swept value is not a number, the data set of ``cost`` is unknown, a run of the miniature world is
            evaluated on something else, or a folder belongs to other settings.
    """
    if sweep.plot is not None:
        swept_values(sweep, sweep.plot)
    for run in runs:
        run.is_evaluated()
        try:
            if sweep.cost:
                find_dataset(sweep.cost, run.cfg.DATASETS.CUSTOM)
            if sweep.is_mini:
                check_test_scenes(run.cfg)
        except ValueError as error:
            raise SweepError(f"{sweep.file}: variant {run.variant.name!r}: {error}") from error


def open_data(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Open the data sets of the missing runs; the miniature world's are drawn, with a warning if scenes are too few.

    Raises:
        DatasetError: one is not on disk.
    """
    opened = set()
    for run in runs:
        data = run.cfg.DATASETS
        if run.is_evaluated() or (key := (*data.TRAIN, *data.TEST, data.ROOT, str(data.CUSTOM))) in opened:
            continue
        opened.add(key)
        for name in data.TEST if run.is_trained() else [*data.TRAIN, *data.TEST]:
            SegmentationPairs(find_dataset(name, data.CUSTOM), data.ROOT)
        if sweep.is_mini:
            open_test_scenes(run.cfg)
