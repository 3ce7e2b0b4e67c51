import pytest
from PIL import Image

from err_seg.commands.benchmark import main


def test_table_holds_speed_and_three_costs(capsys):
    main(["data", "--pictures", "2", "--crop-size", "64"])
    output = capsys.readouterr().out
    assert "images per second and core" in output
    assert output.count("time in ") == 3


def test_wrong_number_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["data", "--pictures", "0"])
    assert "'0' is not a number of at least 1" in capsys.readouterr().err


def test_preparation(capsys):
    main(["data", "--preparation", "--pictures", "4"])
    output = capsys.readouterr().out
    assert "files per second and core" in output
    assert "4 label maps" in output
    assert output.count("time in ") == 3


def test_decoders_are_compared(capsys, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / name)
    main(["data", "--decoders", str(tmp_path)])
    output = capsys.readouterr().out
    assert "Pillow, milliseconds" in output
    assert "OpenCV, milliseconds" in output
    assert "2 of 2" in output
    assert main(["data", "--decoders", str(tmp_path / "nowhere")]) == 1
    assert "no .jpg under" in capsys.readouterr().err
