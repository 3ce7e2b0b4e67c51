"""Text embeddings of vocabularies, encoded once and never stale."""

import functools
import logging
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from err_seg.modeling.clip import OpenCLIP, embed_prompts, text_tower
from err_seg.utils.device import autocast, check_finite, tf32
from err_seg.utils.files import atomic_write
from err_seg.utils.fingerprint import content_digest, weights_digest
from err_seg.utils.locks import fork_safe_lock
from err_seg.utils.progress import ProgressBar

logger = logging.getLogger(__name__)

EMBEDDINGS = "the text embeddings hold"

CLASSES_AT_A_TIME = 64
PROGRESS_FROM = 256
CLASSES_IN_A_PART = 1000
FILES_KEPT = 64
MEMORY_BYTES = 64 * 2**20


def text_parameters(clip: OpenCLIP) -> dict[str, Tensor]:
    """Return, by name, all tensors of a CLIP that its text embeddings depend on."""
    named = clip.named_parameters()
    return {name: p.detach() for name, p in named if not name.startswith("visual.") and name != "logit_scale"}


def weights_checksum(clip: OpenCLIP) -> str:
    """Sum the bits of the text weights as integers of 64 bits, each times a factor that belongs to its place.

    That is cheap enough for every use (0.1 s of one CPU core for 90 million weights), and differs after any training
    step and any permutation.
    """
    sums = []
    for parameter in text_parameters(clip).values():
        content = parameter.contiguous().flatten().view(torch.uint8)
        if len(content) % 8 or content.storage_offset() % 8:
            content = F.pad(content, (0, -len(content) % 8))  # a copy, which is aligned
        factors = _factors(content.device)
        sums += [(block * factors[: len(block)]).sum() for block in content.view(torch.int64).split(len(factors))]
    return content_digest(torch.stack(sums).cpu().numpy().tobytes())


@functools.cache
def _factors(device: torch.device) -> Tensor:
    """Return random odd numbers; on a CPU so few that a block stays in the cache and is not divided among threads."""
    places = 2**15 if device.type == "cpu" else 2**20
    numbers = torch.randint(-(2**63), 2**63 - 1, (places,), generator=torch.Generator().manual_seed(0))
    return (numbers | 1).to(device)


class TextEmbeddings:
    """Embeddings of vocabularies, cached in memory and on disk by (tokens of the prompts, weights of the text tower).

    Memory holds the most recently used ones, up to 64 MB (and always the very last): about 25 vocabularies of 847
    classes. Threads may share a cache; one encodes at a time. A copy of a cache begins with an empty memory. Without a
    ``cache_dir``, the folder of the disk cache, embeddings are in memory only.
    """

    def __init__(self, cache_dir: Path | None):
        self.cache_dir = cache_dir
        self._memory: dict[tuple[str, str], Tensor] = {}  # in order of use, the latest last
        self._lock = fork_safe_lock()

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
            return check_finite(encode_in_batches(clip, tokens), EMBEDDINGS)
        file = self.cache_dir / f"{prompts}-{weights_digest(text_parameters(clip))}.safetensors"
        # where it is missing, damaged, changed, or another vocabulary's: encode, and write it (again)
        with suppress(OSError, SafetensorError), safe_open(file, framework="pt") as stored:
            embeddings = stored.get_tensor("text").clone()
            if (stored.metadata() or {}).get("digest") == weights_digest({file.stem: embeddings}):
                return embeddings
        embeddings = check_finite(encode_in_batches(clip, tokens), EMBEDDINGS)
        try:
            with atomic_write(file) as temporary:
                kept = embeddings.cpu()
                save_file({"text": kept}, temporary, metadata={"digest": weights_digest({file.stem: kept})})
            files = sorted(self.cache_dir.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
            for old in files[:-FILES_KEPT]:
                old.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            logger.warning("text embeddings are not cached on disk: %s", error)
            self.cache_dir = None
        return embeddings


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
