"""Checks in this process: equal numbers, training at each precision, waiting for the device, where time goes."""

import json
import time
import warnings
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from err_seg.config import get_cfg
from err_seg.config.constants import COMPILE_MODES
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.engine import train
from err_seg.engine.trainer import PlainTrainer
from err_seg.lab.benchmarks.cases import Case
from err_seg.lab.benchmarks.machine import measure_machine
from err_seg.lab.benchmarks.measurement import measure, percentiles
from err_seg.lab.benchmarks.report import EXPLANATION, group_table, machine_text
from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.models.build import build_model
from err_seg.utils.device import tf32
from tests.gpu.trial import ROOT, table

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

# required share of pixels with the CPU's label, without TF32 and with it
SAME_LABELS = {False: 0.999, True: 0.99}
MOST_SKIPPED = 20
LARGEST_RATIO = 1 / 3
# of the network and its loss, none of which may wait
NETWORK = ("err_seg/modeling", "err_seg/engine/step.py", "timm/", "open_clip/")


def test_compare(trial, lines):
    """The package's trained network gives the same numbers on the CPU and on the device, with TF32 off and on."""
    data = trial.cfg("compare").DATASETS
    pairs = SegmentationPairs(get_dataset(data.TEST[0]), data.ROOT)
    images = [torch.from_numpy(pairs[i].image).permute(2, 0, 1) for i in range(min(8, len(pairs)))]
    sizes = [(image.shape[1], image.shape[2]) for image in images]

    def predict(device, allowed):
        model = build_model(trial.cfg("compare", "MODEL.DEVICE", device, "MODEL.WEIGHTS", str(ERR_SEG_WEIGHTS)))
        text = model.embed_vocabulary(VOCABULARY)
        with torch.no_grad(), tf32(allowed):
            out = model(model.preprocess(images), text)
        results = model.compact(out, VOCABULARY, sizes)
        return out, torch.cat([result.labels.flatten().cpu() for result in results])

    exact, exact_labels = predict("cpu", False)
    rows, shares = [], {}
    for allowed in (False, True) if not trial.rehearsal else (False,):
        out, labels = predict(str(trial.device), allowed)
        kept = out.kept.cpu() == exact.kept
        same_kept = kept.all(dim=1)
        error = (out.logits.cpu() - exact.logits)[same_kept].abs().max().item() if same_kept.any() else float("nan")
        shares[allowed] = (labels == exact_labels).double().mean().item()
        rows.append(
            ["on" if allowed else "off", f"{kept.double().mean():.2%}", f"{error:.2g}", f"{shares[allowed]:.4%}"]
        )
    lines += table(["TF32", "same classes kept", "largest error of a logit", "same labels"], rows)
    assert all(share >= SAME_LABELS[allowed] for allowed, share in shares.items())


def test_benchmark(trial, lines):
    """One image at A-150, compiled in bf16, takes at most a third of the released arithmetic's time in fp32."""
    cfg, rounds = get_cfg("err_seg_convnext_b", ["MODEL.DEVICE", str(trial.device)]), 20
    reference = Case("prediction", "A-150", 150, 32, 640, 1, (480, 640), is_reference=True)
    if trial.rehearsal:
        cfg, rounds = trial.cfg("benchmark"), 1
        reference = replace(reference, num_classes=20, size=64)
    cfg.MODEL.TEXT.CACHE_DIR = "none"
    low = [("bf16", how) for how in ("", *(COMPILE_MODES[:2] if not trial.rehearsal else ()))]
    cases = [reference] + [
        replace(reference, is_reference=False, num_kept=kept, precision=precision, compiled=how)
        for kept in (32, 8)
        for precision, how in [("fp32", ""), *low]
    ]
    machine = measure_machine(trial.device, ["fp32", "bf16"])
    (rows,) = measure(cases, {"A-150": cfg}, rounds=rounds, machine=machine, demands=not trial.rehearsal)
    lines += [machine_text(machine), "", *group_table(rows).splitlines(), "", *EXPLANATION.splitlines()]
    if trial.rehearsal:
        pytest.skip("Nothing was compiled: the ratio counts on a GPU only.")
    compiled = [percentiles(row.ratios)[0] for row in rows if row.case.compiled and row.case.num_kept == 32]
    assert min(compiled) <= LARGEST_RATIO


@contextmanager
def training(cfg):
    """Begin a training run, to be stepped by hand."""
    with tf32(cfg.SOLVER.TF32), closing(PlainTrainer(cfg, build_model(cfg), resume=False)) as run:
        yield run
        run.monitor.check()


def losses(cfg):
    """Read the lines of ``metrics.json``."""
    return [json.loads(line) for line in Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()]


def test_precisions(trial, lines):
    """Training at fp16, bf16 and fp32 lowers the loss; with the loss scale, the steps skipped and the memory taken."""
    steps, rows, failed = (200 if not trial.rehearsal else 2), [], []
    if trial.rehearsal:
        lines += ["fp16 is left out: it needs a GPU.", ""]
    for precision in ("fp16", "bf16", "fp32") if not trial.rehearsal else ("bf16", "fp32"):
        cfg = trial.cfg(f"precision_{precision}", "SOLVER.PRECISION", precision, "SOLVER.MAX_ITER", steps)
        cfg.LOG.PERIOD = max(1, steps // 10)
        if not trial.rehearsal:
            torch.cuda.reset_peak_memory_stats(trial.device)
        train(cfg, build_model(cfg))
        first, *_, last = losses(cfg)
        before, after = first["total_loss"], last["total_loss"]
        skipped = last.get("skipped_steps", 0)
        if not (after < before or trial.rehearsal) or skipped > MOST_SKIPPED:
            failed.append(precision)
        scale = f"{last['loss_scale']:g}" if "loss_scale" in last else "none"
        numbers = [f"{before:.4f}", f"{after:.4f}", scale, skipped]
        rows.append([precision, *numbers, f"{last['max_mem']:.0f} MiB", f"{1e3 * last['time']:.0f} ms"])
    headings = ["precision", "loss at first", f"after {steps}", "loss scale", "skipped", "memory", "an iteration"]
    lines += table(headings, rows)
    assert not failed


def test_waiting(trial, lines):
    """The network and its loss never make the host wait (``torch.cuda.set_sync_debug_mode``); lists what else does."""
    if trial.rehearsal:
        pytest.skip("Left out: only CUDA reports waiting.")
    steps = 5
    cfg = trial.cfg("waiting", "SOLVER.PRECISION", "fp16", "SOLVER.MAX_ITER", steps + 3, "LOG.PERIOD", 1000)
    with training(cfg) as run:
        for _ in range(3):
            run.step()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                for _ in range(steps):
                    run.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{w.filename.removeprefix(f'{ROOT}/')}:{w.lineno}" for w in warned if "synchron" in str(w.message)
    )
    of_network = [place for place in places if any(part in place for part in NETWORK)]
    rows = [[f"`{place}`", f"{count / steps:g}"] for place, count in places.most_common()]
    lines += table(["where", "times an iteration"], rows or [["nowhere", 0]])
    assert not of_network


def test_profile(trial, lines):
    """Where the time of training goes, images read by worker processes."""
    steps = 20 if not trial.rehearsal else 1
    cfg = trial.cfg("profile", "DATALOADER.NUM_WORKERS", 4 if not trial.rehearsal else 1, "LOG.PERIOD", steps)
    cfg.SOLVER.PRECISION, cfg.SOLVER.MAX_ITER = "auto", 2 * steps
    activities = [ProfilerActivity.CPU] if trial.rehearsal else [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with training(cfg) as run:
        for _ in range(steps):
            run.step()
        with profile(activities=activities) as profiler:
            start = time.perf_counter()
            for _ in range(steps):
                run.step()
            if not trial.rehearsal:
                torch.cuda.synchronize(trial.device)
            seconds = time.perf_counter() - start
        run.monitor.check()
    on = "cpu" if trial.rehearsal else "device"
    events = sorted(profiler.key_averages(), key=lambda e: getattr(e, f"self_{on}_time_total"), reverse=True)
    busy = sum(getattr(event, f"self_{on}_time_total") for event in events) / 1e6
    rows = [
        [f"`{event.key[:60]}`", event.count, f"{getattr(event, f'self_{on}_time_total') / 1e3 / steps:.2f} ms"]
        for event in events[:12]
    ]
    line = losses(cfg)[-1]
    lines += [
        f"An iteration takes {1e3 * seconds / steps:.1f} ms, of which the {on} is busy {busy / seconds:.0%}; "
        f"{1e3 * line['data_time']:.1f} ms (median) are spent waiting for images.",
        "",
        *table(["most of the time", "calls", "an iteration"], rows),
    ]
