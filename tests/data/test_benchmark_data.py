import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "benchmark_data.py"


@pytest.fixture
def main():
    """The tool's entry, and the number of threads that it lowers put back."""
    threads = torch.get_num_threads()
    yield runpy.run_path(str(TOOL))["main"]
    torch.set_num_threads(threads)


def test_table_holds_speed_and_three_costs(main, capsys):
    main(["--pictures", "2", "--crop-size", "64"])
    output = capsys.readouterr().out
    assert "pictures a second a core" in output
    assert output.count("time in ") == 3


def test_wrong_number_is_refused(main, capsys):
    with pytest.raises(SystemExit):
        main(["--pictures", "0"])
    assert "expected at least 1, found 0" in capsys.readouterr().err


def test_preparation(main, capsys):
    main(["--preparation", "--pictures", "4"])
    output = capsys.readouterr().out
    assert "files a second a core" in output
    assert "4 label maps" in output
    assert output.count("time in ") == 3


def test_decoders_are_compared(main, capsys, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / name)
    main(["--decoders", str(tmp_path)])
    output = capsys.readouterr().out
    assert "Pillow, milliseconds" in output
    assert "OpenCV, milliseconds" in output
    assert "2 of 2" in output
    with pytest.raises(SystemExit, match=r"no \.jpg under"):
        main(["--decoders", str(tmp_path / "nowhere")])
