"""Lists and suggestions in messages."""

from err_seg.utils.messages import did_you_mean, listed


def test_long_lists_say_how_much_they_leave_out():
    assert listed([]) == ""
    assert listed(["a", 2], most=2) == "a, 2"
    assert listed(map(str, range(1300)), most=3) == "0, 1, 2 and 1,297 more"


def test_only_near_names_are_suggested():
    assert did_you_mean("ade20k_15", ("ade20k_150", "coco"), "they are ...") == "did you mean 'ade20k_150'?"
    assert did_you_mean(5, ("ade20k_150",), "they are ...") == "they are ..."
