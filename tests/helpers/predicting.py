"""err-seg predict on a toy network, for the tests of its parts."""

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.commands import models, predict
from tests.helpers.toy import TOY, liven


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory):
    """Return a file of a toy network that says how it is configured."""
    cfg = err_seg.get_cfg(None, TOY)
    model = err_seg.build_model(cfg)
    liven(model)
    file = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    err_seg.save_weights(model, file, {"config": cfg.dump()})
    return file


@pytest.fixture(scope="module")
def toy(toy_weights):
    """Return the toy network."""
    return err_seg.load(toy_weights, device="cpu")


@pytest.fixture
def run_predict(toy, toy_weights, monkeypatch, capsys, tmp_path):
    """Return a function that runs err-seg predict; gives exit status, standard output and error output."""
    monkeypatch.setattr(models, "load_model", lambda arguments: toy)

    def run(*arguments, classes="cat, dog, grass", output=tmp_path / "out"):
        words = [] if classes is None else ["--classes", classes]
        argv = ["predict.py", *map(str, arguments), *words, "--output", str(output)]
        monkeypatch.setattr("sys.argv", argv)
        try:
            status = predict.main()
        except SystemExit as leaving:
            status = leaving.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return run


def save(path, size=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def files(folder):
    """List the files in a folder but the manifests of results."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if not name.startswith("manifest")]
