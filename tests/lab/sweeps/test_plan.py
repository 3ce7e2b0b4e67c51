import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from err_seg.config import Config, loading
from err_seg.lab.sweeps.definition import SweepError, load_sweep
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.models.checkpoint import CheckpointError, weights_file_digest
from err_seg.utils import fingerprint
from tests.helpers.toy import REPOSITORY, VOCABULARY
from tests.helpers.training import write_images

TEXT = """
title: T
base: base.yaml
variants:
  full: {}
  other training: {settings: {MODEL.CRM.NUM_KEPT_TRAIN: 3}}
  other K: {settings: {MODEL.CRM.NUM_KEPT: 3}}
  other place:
    settings:
      {MODEL.DEVICE: cpu, LOG.PERIOD: 3, DATASETS.ROOT: /data, SOLVER.ACCUMULATION_STEPS: 2, TEST.EVAL_PERIOD: 9}
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "base.yaml").write_text("{}\n")
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return load_sweep(tmp_path / "sweep.yaml")


def test_runs_share_what_does_not_differ(sweep, tmp_path):
    full, training, kept, place = plan_runs(sweep, tmp_path)
    assert full.training != training.training
    assert (full.training, full.evaluation) == (place.training, place.evaluation)
    assert full.training == kept.training
    assert full.evaluation != kept.evaluation
    (seed, *_) = plan_runs(sweep, tmp_path, ["SEED", 5], seeds=[1])[len(sweep.variants) :]
    assert (seed.cfg.SEED, seed.training == full.training) == (1, False)


def test_what_is_at_its_default_need_not_be_said(sweep, tmp_path):
    (full, *_) = plan_runs(sweep, tmp_path)
    (same, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.NUM_RANKS", 3])
    assert same.training == full.training
    (other, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.NUM_RANKS", 4])
    assert other.training != full.training


def test_a_changed_default_is_another_run(sweep, tmp_path, monkeypatch):
    """Folders used to be named after what differs from the defaults of the day."""
    before = plan_runs(sweep, tmp_path)
    changed = Config()
    changed.MODEL.CRM.NUM_RANKS = 4
    monkeypatch.setattr(loading, "Config", changed.clone)
    after = plan_runs(sweep, tmp_path)
    (same, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.NUM_RANKS", 3])
    assert not {run.training.folder for run in before} & {run.training.folder for run in after}
    assert same.training.folder == before[0].training.folder
    monkeypatch.setattr(fingerprint, "RESULT_FORMAT", fingerprint.RESULT_FORMAT + 1)
    (other, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.NUM_RANKS", 3])
    assert other.training.folder != same.training.folder


def test_files_and_data_sets_count_by_what_they_hold(sweep, tmp_path):
    weights, words = tmp_path / "weights.safetensors", tmp_path / "words.txt"
    custom = [{"name": "own", "image_dir": "a", "label_dir": "b", "vocabulary": str(words)}]
    own = ["DATASETS.CUSTOM", custom, "DATASETS.TEST", ["own"]]
    taught = ["MODEL.DISTILL.WEIGHTS", str(weights), *own]
    overrides, seen, taught_by = ["MODEL.WEIGHTS", str(weights), *own], [], []
    for value, text in ((0, "cat\ndog\n"), (1, "cat\ndog\n"), (1, "cat\nsky\n")):
        save_file({"weight": torch.full((1,), value)}, weights)
        words.write_text(text)
        (run, *_) = plan_runs(sweep, tmp_path, overrides)
        seen.append((run.training.folder, run.evaluation.folder))
        taught_by.append(plan_runs(sweep, tmp_path, taught)[0].training.folder)
    assert taught_by[0] != taught_by[1] == taught_by[2]
    assert seen[0][0] != seen[1][0] == seen[2][0]
    assert seen[1][1] != seen[2][1]
    with pytest.raises(SweepError, match="variant 'full': unknown data set 'owm'"):
        plan_runs(sweep, tmp_path, ["DATASETS.TEST", ["owm"]])


@pytest.fixture
def any_root(sweep, tmp_path):
    """The sweep without the variant that lies elsewhere."""
    sweep.file.write_text(TEXT.replace(" DATASETS.ROOT: /data,", ""))
    return load_sweep(sweep.file)


OWN = {"name": "own", "image_dir": "val/images", "label_dir": "val/labels", "vocabulary": list(VOCABULARY)}
ON_OWN = ["DATASETS.CUSTOM", [{**OWN, "image_ext": ".png"}], "DATASETS.TRAIN", ["own"], "DATASETS.TEST", ["own"]]


def finish(run):
    """Leave what a finished run does."""
    run.training.begin()
    save_file({"weight": torch.ones(1)}, run.weights)
    run.evaluation.begin(weights_file_digest(run.weights))
    run.results.write_text("{}")
    assert run.is_evaluated()


def test_another_data_set_of_the_same_name_is_another_run(any_root, tmp_path, monkeypatch):
    """The results of the first were shown for the second, as done before."""
    for seed, name in enumerate(("first", "second")):
        write_images(tmp_path / name, "val", 3, len(VOCABULARY), seed)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")  # with the times of the files

    def planned(root):
        return plan_runs(any_root, tmp_path / "runs", [*ON_OWN, "DATASETS.ROOT", str(root) if root else ""])[0]

    finish(planned(tmp_path / "first"))
    assert not planned(tmp_path / "second").is_trained()
    finish(planned(tmp_path / "second"))
    assert planned(tmp_path / "first").results != planned(tmp_path / "second").results
    assert planned(tmp_path / "copy") == replace(planned(tmp_path / "first"), cfg=planned(tmp_path / "copy").cfg)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "second"))
    assert planned("").results == planned(tmp_path / "second").results
    label = tmp_path / "copy/val/labels/p1.png"
    for change in (lambda: os.utime(label, (1, 1)), lambda: label.write_bytes(label.read_bytes() + b" "), label.unlink):
        change()
        assert not planned(tmp_path / "copy").is_trained()
    assert not planned(tmp_path / "none").is_evaluated(), "it could be either"


def test_given_weights_do_not_depend_on_training_images(any_root, tmp_path):
    write_images(tmp_path, "val", 3, len(VOCABULARY))
    save_file({"weight": torch.ones(1)}, tmp_path / "given.safetensors")
    custom = [{**OWN, "name": name, "image_dir": f"{name}/images", "image_ext": ".png"} for name in ("own", "val")]
    own = [
        "DATASETS.CUSTOM",
        custom,
        "DATASETS.TRAIN",
        ["own"],
        "DATASETS.TEST",
        ["val"],
        "DATASETS.ROOT",
        str(tmp_path),
    ]
    before = plan_runs(any_root, tmp_path, own, weights=tmp_path / "given.safetensors")[0].results
    write_images(tmp_path, "own", 3, len(VOCABULARY))
    assert plan_runs(any_root, tmp_path, own, weights=tmp_path / "given.safetensors")[0].results == before


def of_an_earlier_version(task, *lacking):
    """Give a finished task the record and the folder of a version without some keys; return the folder."""
    record = json.loads((task.folder / "identity.json").read_text())
    for key in lacking:
        del record["facts"][key]
    (task.folder / "identity.json").write_text(json.dumps(record))
    return task.folder.rename(task.folder.with_name("0123456789ab"))


def test_a_new_key_at_its_default_leaves_earlier_runs_as_they_are(sweep, tmp_path):
    """All of them would be missing, and the table be written anew, as not run."""
    finish(plan_runs(sweep, tmp_path)[0])
    of_an_earlier_version(plan_runs(sweep, tmp_path)[0].evaluation, "TEST.BOUNDARY_IOU")
    of_an_earlier_version(plan_runs(sweep, tmp_path)[0].training, "MODEL.CRM.MIN_KEPT", "SOLVER.EMA.DECAY")
    (kept, *_) = plan_runs(sweep, tmp_path, ["MODEL.CRM.MIN_KEPT", 2])
    assert not kept.is_trained()
    (other, *_) = plan_runs(sweep, tmp_path, ["TEST.BOUNDARY_IOU", True])
    assert (other.is_trained(), other.is_evaluated()) == (True, False)
    (run, *_) = plan_runs(sweep, tmp_path)
    assert run.is_evaluated()
    assert run.evaluation.folder == tmp_path / "0123456789ab/evaluations/0123456789ab"


@pytest.mark.parametrize("setting", [("TEST.TILE", 192), ("TEST.REFINE", True), ("TEST.NUM_IMAGES", 20)])
def test_windows_borders_and_parts_are_other_evaluations_of_the_same_training(sweep, tmp_path, setting):
    """An earlier version, which had none of these keys, measured whole images, all of them."""
    finish(plan_runs(sweep, tmp_path)[0])
    of_an_earlier_version(plan_runs(sweep, tmp_path)[0].evaluation, "TEST.TILE", "TEST.REFINE", "TEST.NUM_IMAGES")
    assert plan_runs(sweep, tmp_path)[0].is_evaluated()
    (other, *_) = plan_runs(sweep, tmp_path, setting)
    assert (other.is_trained(), other.is_evaluated()) == (True, False)


def test_the_data_that_weights_are_chosen_on_does_not_matter(sweep, tmp_path):
    before, after = (
        plan_runs(sweep, tmp_path, more)[0].training.folder for more in ([], ["DATASETS.VAL", ["mini_world_val"]])
    )
    assert before == after


def test_other_code_of_a_package_is_another_run(sweep, tmp_path, package):
    folders = []
    for text in ("WIDTH = 8", "WIDTH = 16", "WIDTH = 8"):
        package("own_part", text)
        folders.append(plan_runs(sweep, tmp_path, ["MODEL.IMPORTS", ["own_part"]])[0].training.folder)
    assert folders[0] == folders[2] != folders[1]
    assert plan_runs(sweep, tmp_path)[0].training.folder not in folders


def test_a_run_that_does_not_say_its_data_is_of_those_that_are_there_first(any_root, tmp_path, caplog):
    for seed, name in enumerate(("first", "second")):
        write_images(tmp_path / name, "val", 3, len(VOCABULARY), seed)
    first, second = (
        lambda root=root: plan_runs(any_root, tmp_path / "runs", [*ON_OWN, "DATASETS.ROOT", str(tmp_path / root)])[0]
        for root in ("first", "second")
    )
    finish(first())
    of_an_earlier_version(first().evaluation, "DATASETS.TEST.files.0")
    folder = of_an_earlier_version(first().training, "DATASETS.TRAIN.files.0")
    assert first().is_evaluated()
    assert f"{folder}/identity.json does not say DATASETS.TRAIN.files.0, which is taken to be as now" in caplog.text
    assert not second().is_trained()
    assert first().training.folder == folder


def test_a_folder_of_other_settings_is_refused(sweep, tmp_path):
    (run, *_) = plan_runs(sweep, tmp_path)
    assert not run.is_trained()
    run.training.begin()
    save_file({"weight": torch.ones(1)}, run.weights)
    assert run.is_trained()
    record = run.training.folder / "identity.json"
    document = json.loads(record.read_text())
    assert document["facts"]["SOLVER.MAX_ITER"] == run.cfg.SOLVER.MAX_ITER, "the full settings are kept"
    for change in ({"facts": {**document["facts"], "SOLVER.MAX_ITER": 9, "SOLVER.NEW": 1}}, {"format": 1}):
        record.write_text(json.dumps({**document, **change}))
        with pytest.raises(
            SweepError, match=r"holds results of other settings \((SOLVER.MAX_ITER, SOLVER.NEW|format)\)"
        ):
            run.is_trained()
    record.unlink()  # whatever it is, it is not known to be this
    with pytest.raises(SweepError, match="move it away"):
        run.is_evaluated()


def test_results_are_of_the_weights_that_are_there(sweep, tmp_path):
    (run, *_) = plan_runs(sweep, tmp_path)
    run.training.begin()
    save_file({"weight": torch.ones(1)}, run.weights)
    run.evaluation.begin(weights_file_digest(run.weights))
    assert not run.is_evaluated()
    run.results.write_text("{}")
    assert run.is_evaluated()
    save_file({"weight": torch.zeros(1)}, run.weights)
    assert not run.is_evaluated()
    run.weights.unlink()  # to save space
    assert run.is_evaluated()


def test_given_weights_are_told_by_their_content(sweep, tmp_path):
    save_file({"weight": torch.ones(1)}, tmp_path / "a.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "b.safetensors", metadata={"where": "in another file"})
    save_file({"weight": torch.zeros(1)}, tmp_path / "c.safetensors")
    a, b, c = (
        [run.evaluation.folder for run in plan_runs(sweep, tmp_path, weights=tmp_path / f"{name}.safetensors")]
        for name in "abc"
    )
    assert a == b
    assert not {*a} & {*c}
    full, training, kept, _ = a
    assert len({full, training, kept}) == 3, "the network's settings count, since the weights do not tell them"
    with pytest.raises(CheckpointError, match="none"):
        plan_runs(sweep, tmp_path, weights=tmp_path / "none")


def test_tables_share_the_full_network(tmp_path):
    trainings = set()
    for name in (
        "table_v",
        "table_vii",
        "table_viii",
        "table_ix",
        "table_x",
        "table_xiii",
        "table_xiv",
        "fig_6",
        "fig_7",
    ):
        sweep = load_sweep(REPOSITORY / f"configs/ablations/{name}.yaml", mini=True)
        trainings.add(plan_runs(sweep, tmp_path)[0].training.folder)
    assert len(trainings) == 1


def test_keys_of_entries_that_earlier_versions_did_not_have(any_root, tmp_path):
    """A record of an earlier version stays valid; entries that differ in a new key are other runs."""
    planned = {}
    for name, keys in {"before": {}, "left out": {"left_out": ["cat"]}, "split": {"split": "a.txt"}}.items():
        entry = {**ON_OWN[1][0], **keys}
        planned[name] = plan_runs(any_root, tmp_path / "runs", [*ON_OWN[2:], "DATASETS.CUSTOM", [entry]])[0]
    (recorded,) = planned["before"].training.facts["DATASETS.TRAIN"]
    assert list(recorded) == [
        *("name", "image_dir", "label_dir", "vocabulary", "image_ext", "label_ext", "ignore_label"),
        *("num_kept", "variant", "num_foreground", "num_images", "preparation", "aliases"),
    ]
    assert len({run.training.folder for run in planned.values()}) == 3
    finish(planned["before"])
    assert planned["before"].is_evaluated()
    assert not planned["left out"].is_trained()
