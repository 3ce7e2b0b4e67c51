"""What a result says where the program that it is for is not installed."""

import sys

import pytest

from tests.helpers.toy import VOCABULARY


@pytest.mark.parametrize("program", ["fiftyone", "supervision"])
def test_the_extra_is_named(toy_model, images, monkeypatch, program):
    monkeypatch.setitem(sys.modules, program, None)
    monkeypatch.delitem(sys.modules, f"err_seg.integrations.{program}", raising=False)
    result = toy_model().predict(images[0], VOCABULARY)
    with pytest.raises(ImportError, match=rf'pip install "err_seg\[{program}\]"'):
        getattr(result, f"to_{program}")()
