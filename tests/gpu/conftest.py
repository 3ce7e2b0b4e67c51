"""What every check takes: where it runs, and the lines of the page that it writes."""

import pytest
import torch

from tests.gpu.page import TRIAL
from tests.gpu.trial import Trial


@pytest.fixture
def trial(request, tmp_path):
    """Return the script's device and folder; without the script, the GPU and a temporary folder."""
    if (given := request.config.stash.get(TRIAL, None)) is not None:
        return given
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU; bash scripts/gpu_checks.sh --device cpu is a rehearsal")
    return Trial(torch.device("cuda"), tmp_path)


@pytest.fixture
def lines(request):
    """Return the list that takes a check's lines of Markdown."""
    written = []
    request.node.user_properties.append(("lines", written))
    return written
