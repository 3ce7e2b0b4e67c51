"""Text embeddings of vocabularies, encoded once and never stale."""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from err_seg.modeling.clip import OpenCLIP, embed_prompts, text_tower
from err_seg.utils.device import autocast, tf32
from err_seg.utils.files import atomic_write, cache_dir
from err_seg.utils.fingerprint import content_digest, weights_digest
from err_seg.utils.locks import ForkSafeLock
from err_seg.utils.progress import ProgressBar

logger = logging.getLogger(__name__)

CLASSES_AT_A_TIME = 64
PROGRESS_FROM = 256
CLASSES_IN_A_PART = 1000
FILES_KEPT = 64
MEMORY_BYTES = 64 * 2**20


def default_cache_dir() -> Path:
    """Return ``$ERR_SEG_CACHE``, else ``~/.cache/err_seg``, with ``text_embeddings`` appended."""
    return cache_dir() / "text_embeddings"


def text_parameters(clip: OpenCLIP) -> dict[str, Tensor]:
    """Return, by name, all tensors of a CLIP that its text embeddings depend on."""
    named = clip.named_parameters()
    return {name: p.detach() for name, p in named if not name.startswith("visual.") and name != "logit_scale"}


def weights_checksum(clip: OpenCLIP) -> str:
    """Sum the bits of each text weight as integers: cheap enough for every use, different after any training step."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    parameters = text_parameters(clip).values()
    sums = [p.contiguous().view(integers[p.element_size()]).sum(dtype=torch.int64) for p in parameters]
    return content_digest(torch.stack(sums).cpu().numpy().tobytes())


class TextEmbeddings:
    """Embeddings of vocabularies, cached in memory and on disk by (tokens of the prompts, weights of the text tower).

    Memory holds the most recently used ones, up to 64 MB (and always the very last): about 25 vocabularies of 847
    classes. Threads may share a cache; one encodes at a time. A copy of a cache begins with an empty memory.

    Args:
        cache_dir: folder of the disk cache; ``None`` keeps embeddings in memory only.
    """

    def __init__(self, cache_dir: Path | None):
        self.cache_dir = cache_dir
        self._memory: dict[tuple[str, str], Tensor] = {}  # in order of use, the latest last
        self._lock = ForkSafeLock()

    def __reduce__(self) -> tuple[type["TextEmbeddings"], tuple[Path | None]]:
        """Copy and pickle as a new cache with the same folder."""
        return TextEmbeddings, (self.cache_dir,)

    @torch.no_grad()
    def __call__(self, clip: OpenCLIP, tokens: Tensor) -> Tensor:
        """Embed the tokens (T, P, L) of a vocabulary to (T, D) float32 unit vectors on the CLIP's device.

        A long vocabulary is embedded in parts, each with prompts of about equal length, so that short prompts are not
        padded to the longest. Each part is cached by itself: after an interruption, the same call continues where it
        was.
        """
        checksum = weights_checksum(clip)
        if len(tokens) <= CLASSES_IN_A_PART:
            return self._embed_part(clip, tokens, checksum)
        lengths = tokens.argmax(dim=2).amax(dim=1) + 1  # the end-of-text token has the largest id
        order = lengths.argsort(stable=True)
        parts = [tokens[rows, :, : int(lengths[rows].max())] for rows in order.split(CLASSES_IN_A_PART)]
        return torch.cat([self._embed_part(clip, part, checksum) for part in parts])[order.argsort()]

    def _embed_part(self, clip: OpenCLIP, tokens: Tensor, checksum: str) -> Tensor:
        prompts = content_digest(f"{tuple(tokens.shape)}".encode() + tokens.numpy().tobytes())
        key = (prompts, checksum)
        device = text_tower(clip).positional_embedding.device
        with self._lock:
            embeddings = self._memory.pop(key, None)
            if embeddings is None:
                embeddings = self._load_or_encode(clip, tokens, prompts)
            self._memory[key] = embeddings = embeddings.to(device)
            while len(self._memory) > 1 and sum(known.nbytes for known in self._memory.values()) > MEMORY_BYTES:
                del self._memory[next(iter(self._memory))]
        return embeddings

    def _load_or_encode(self, clip: OpenCLIP, tokens: Tensor, prompts: str) -> Tensor:
        if self.cache_dir is None:
            return encode_in_batches(clip, tokens)
        file = self.cache_dir / f"{prompts}-{weights_digest(text_parameters(clip))}.safetensors"
        try:
            return load_file(file)["text"]
        except (OSError, SafetensorError, KeyError):
            pass  # missing or damaged: encode, and write the file (again)
        embeddings = encode_in_batches(clip, tokens)
        try:
            self._write(file, embeddings.cpu())
        except (OSError, SafetensorError) as error:
            logger.warning("text embeddings are not cached on disk: %s", error)
            self.cache_dir = None
        return embeddings

    @staticmethod
    def _write(file: Path, embeddings: Tensor) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            save_file({"text": embeddings.contiguous()}, temporary)
        newest_first = sorted(file.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in newest_first[FILES_KEPT:]:
            old.unlink(missing_ok=True)


def encode_in_batches(clip: OpenCLIP, tokens: Tensor) -> Tensor:
    """Embed (T, P, L) tokens, one batch of classes at a time, to (T, D), with a progress bar for long vocabularies."""
    device = text_tower(clip).positional_embedding.device
    batches = tokens.split(max(1, CLASSES_AT_A_TIME // tokens.shape[1]))
    is_short = tokens.shape[0] * tokens.shape[1] < PROGRESS_FROM
    progress = ProgressBar(total=len(tokens), desc="text embeddings", unit="class", leave=False, disable=is_short)
    embeddings = []
    with tf32(False), autocast(device, None), progress:
        for batch in batches:
            embeddings.append(embed_prompts(clip, batch.to(device)).float())
            progress.update(len(batch))
    return torch.cat(embeddings)
