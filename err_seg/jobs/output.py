"""Opening a folder of results: for one set of weights, one set of settings, and one job at a time."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from err_seg.config import completed
from err_seg.jobs.manifest import Manifest, OutputError, write_line
from err_seg.utils.files import remove_partial_files, try_lock
from err_seg.utils.fingerprint import RESULT_FORMAT
from err_seg.visualization.text import shortened

EARLIER_SETTINGS = "settings.json"  # of versions that recognised finished results by the times of files


@contextmanager
def open_output(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    source: Mapping[str, Any] | None = None,
    files: Iterable[str] = (),
    force: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[Manifest]:
    """Open a folder for the results of some weights and settings, during a ``with`` block.

    Args:
        folder: created if it is missing.
        settings: all that results depend on besides images, JSON-able.
        source: where the weights were read from; it is recorded beside the settings, and never compared.
        files: names of those that the job will write besides the images' results; in a folder without results, they
            belong to something else.
        force: ignore the results that are there; files of the same names are replaced.
        rank, processes: number of this process, and of all processes of the job.

    Raises:
        OutputError: the folder holds results of other settings (names one) or of another version, or files of
            something else, another job is writing to it, or it cannot be written.
    """
    folder, settings = Path(os.path.expanduser(folder)), json.loads(json.dumps(settings))
    own = folder / (f"manifest-{rank}.jsonl" if rank else "manifest.jsonl")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        if try_lock(descriptor) is False:
            raise OutputError(
                f"another run is writing to {folder} at this moment; wait for it, or choose another --output"
            )
        manifest = Manifest(folder, descriptor)
        try:
            remove_partial_files(folder)
            if force:
                os.ftruncate(descriptor, 0)
                if rank == 0:
                    _forget_others(folder, processes)
            else:
                _take_up(manifest, settings)
                if rank == 0 and os.fstat(descriptor).st_size == 0:
                    _check_absent(folder, files)
            _begin(own, descriptor, {"settings": settings, **({"source": source} if source else {})})
        except OSError as error:
            if os.fstat(descriptor).st_size == 0:
                own.unlink()
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield manifest
    finally:
        os.close(descriptor)


def _forget_others(folder: Path, processes: int) -> None:
    """Remove the manifests of processes that this job lacks, and the settings of an earlier version."""
    if _is_earlier(folder / EARLIER_SETTINGS):
        (folder / EARLIER_SETTINGS).unlink()
    for manifest in folder.glob("manifest-*.jsonl"):
        number = manifest.stem.removeprefix("manifest-")
        if number.isdecimal() and int(number) >= processes:
            manifest.unlink()


def _check_absent(folder: Path, files: Iterable[str]) -> None:
    for file in files:
        if (folder / file).exists():
            raise OutputError(
                f"{folder} holds {file}, but no results: it may be a data set's or a site's; "
                "choose another --output, or replace it with --force"
            )


def _take_up(manifest: Manifest, settings: Mapping[str, Any]) -> None:
    """Read all manifests of a folder, which must be of these settings and of this version."""
    folder, remedy = manifest.folder, "choose another --output, or replace them with --force"
    if _is_earlier(folder / EARLIER_SETTINGS):
        raise OutputError(
            f"{folder} holds results of an earlier version, which did not record which images they are of; {remedy}"
        )
    for file in sorted(folder.glob("manifest*.jsonl")):
        with file.open("rb") as lines:
            present = _settings_in(next(lines, b""))
            if present is None:
                continue
            if present["err_seg_results"] != RESULT_FORMAT:
                raise OutputError(
                    f"{folder} holds results in format {present['err_seg_results']}, this version writes "
                    f"{RESULT_FORMAT}; {remedy}"
                )
            recorded = completed(present["settings"], settings)
            if recorded != settings:
                difference = _first_difference(recorded, settings)
                raise OutputError(f"{folder} holds results of other settings ({difference}); {remedy}")
            manifest.read(lines)


def _begin(file: Path, descriptor: int, facts: Mapping[str, Any]) -> None:
    """Write the line of settings and source unless it is there; begin a new line if a kill cut the last one short."""
    with file.open("rb") as lines:
        if _settings_in(next(lines, b"")) is None:
            os.ftruncate(descriptor, 0)
            write_line(descriptor, {"err_seg_results": RESULT_FORMAT, **facts})
            return
        lines.seek(-1, os.SEEK_END)
        if lines.read() != b"\n":
            os.write(descriptor, b"\n")


def _settings_in(line: bytes) -> dict[str, Any] | None:
    """Read a manifest's first line; ``None`` if a kill came before it was written."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(found, dict) and "err_seg_results" in found and isinstance(found.get("settings"), dict)
    return found if is_ours else None


def _is_earlier(file: Path) -> bool:
    try:
        return json.loads(file.read_text(encoding="utf-8")).keys() > {"classes", "format", "weights", "opts"}
    except (OSError, ValueError, AttributeError):
        return False


def _first_difference(present: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    key = next(key for key in {**settings, **present} if present.get(key) != settings.get(key))
    now, before = (shortened(json.dumps(facts.get(key), ensure_ascii=False), 60) for facts in (settings, present))
    return f"{key} is {now} now and was {before}"
