"""examples/space: what a Hugging Face Space reads, and that its app serves the page."""

import runpy

import pytest
import yaml

gradio = pytest.importorskip("gradio")
tomllib = pytest.importorskip("tomllib")

from err_seg.commands.web import parse_arguments
from tests.helpers.serving import serving
from tests.helpers.toy import REPOSITORY

SPACE = REPOSITORY / "examples/space"


def test_header():
    _, header, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    settings = yaml.safe_load(header)
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert settings["sdk_version"].split(".")[0] == gradio.__version__.split(".")[0]
    assert len(settings["short_description"]) <= 60, "the most that the hub takes"


def test_requirements_are_those_of_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["web"]]
    assert (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines() == needed


def test_app(monkeypatch):
    """It serves the page where a Space looks for it, and huggingface.co may show it."""
    seen = []

    def serve(app, host, port):
        with serving(app) as site:
            seen.append((host, port, site.ask("GET", "/")))
            assert site.ask("GET", "/", host="me-err-seg.hf.space").status == 200
            assert site.ask("GET", "/", host="me-err-seg.hf.space.evil.example").status == 421

    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # put back afterwards, whatever the command sets
    monkeypatch.setenv("ERR_SEG_MODEL", "mini")
    monkeypatch.setenv("SPACE_HOST", "me-err-seg.hf.space")
    monkeypatch.setattr("err_seg.web.serve", serve)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    ((host, port, front),) = seen
    assert (end.value.code, host, port, front.status) == (0, "0.0.0.0", 7860, 200)
    assert front.headers["content-security-policy"].endswith("; frame-ancestors 'self' https://huggingface.co")


@pytest.mark.parametrize("address", ["huggingface.co", "https://a.com; script-src *", "https://a.com\n", "*", ""])
def test_only_addresses_of_sites_may_frame_the_page(address, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--framed-by", address])
    assert "is not a site's address" in capsys.readouterr().err
