import runpy
from pathlib import Path

import pytest
import torch

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
