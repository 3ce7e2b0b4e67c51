"""What is the same image, the same weights and the same setting, and what is not."""

import os
import time

import pytest
import torch
from torch import nn

from err_seg.models import checkpoint as digest_module
from err_seg.models.checkpoint import CheckpointError, save_weights, weights_file_digest
from err_seg.utils import fingerprint as fingerprint_module
from err_seg.utils.files import file_signature
from err_seg.utils.fingerprint import content_digest, file_digest, fingerprint, is_settled, weights_digest


def test_settings_are_told_apart_by_values_not_by_order(monkeypatch):
    first = fingerprint({"a": 1, "b": [1, 2]})
    assert first == fingerprint({"b": (1, 2), "a": 1})
    assert first != fingerprint({"a": 1, "b": [2, 1]})
    fingerprint({"name": os.fsdecode(b"caf\xe9.png")})  # a name that is not UTF-8
    monkeypatch.setattr(fingerprint_module, "RESULT_FORMAT", fingerprint_module.RESULT_FORMAT + 1)
    assert first != fingerprint({"a": 1, "b": [1, 2]})


def test_content_identifies_a_file(tmp_path):
    for name, data in (("a", b"x" * 3_000_000), ("b", b"x" * 3_000_000), ("c", b"y" * 3_000_000)):
        (tmp_path / name).write_bytes(data)
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") == content_digest(b"x" * 3_000_000)
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "c")


def test_signature_sees_a_file_replaced_with_its_time_put_back(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    before = file_signature(tmp_path / "a")
    time.sleep(0.02)  # a tick of the file system's clock
    (tmp_path / "b").write_bytes(b"2")
    os.utime(tmp_path / "b", ns=(before[1], before[1]))
    os.replace(tmp_path / "b", tmp_path / "a")
    after = file_signature(tmp_path / "a")
    assert before[:2] == after[:2]
    assert before != after


def test_a_file_that_changed_just_now_proves_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert not is_settled(file_signature(tmp_path / "a"))
    long_ago = time.time_ns() - 10_000_000_000
    assert is_settled([1, long_ago, long_ago])
    assert not is_settled([1, long_ago, time.time_ns() + 10_000_000_000])


def test_weights_differ_in_any_bit_name_shape_or_type():
    values = {"a": torch.arange(6.0), "b": torch.tensor(1.0)}
    others = [
        {**values, "a": torch.tensor([0.0, 1, 2, 3, 4, 5.000001])},
        {**values, "a": torch.arange(6.0).view(2, 3)},
        {**values, "a": torch.arange(6)},
        {"c": values["a"], "b": values["b"]},
        {"a": values["a"]},
    ]
    assert weights_digest(values) == weights_digest({"b": values["b"].clone(), "a": torch.arange(6.0)})
    assert len({weights_digest(weights) for weights in (values, *others)}) == 6


def test_file_and_network_have_the_same_digest_whatever_else_the_file_says(tmp_path, monkeypatch):
    monkeypatch.setenv("ERR_SEG_CACHE", str(tmp_path / "cache"))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for number in range(2):
        save_weights(network, tmp_path / f"{number}.safetensors", {"iteration": number})
    torch.save({"model": network.state_dict(), "iteration": 3}, tmp_path / "nested.pth")
    expected = weights_digest(network)
    assert weights_file_digest(tmp_path / "0.safetensors") == expected
    assert weights_file_digest(tmp_path / "1.safetensors") == expected
    assert weights_file_digest(tmp_path / "nested.pth") == expected
    (tmp_path / "blob").write_bytes((tmp_path / "0.safetensors").read_bytes())  # as the hub's cache has them
    (tmp_path / "link.safetensors").symlink_to("blob")
    assert weights_file_digest(tmp_path / "link.safetensors") == expected
    with pytest.raises(CheckpointError, match=r"absent\.pth"):
        weights_file_digest(tmp_path / "absent.pth")


def test_digest_of_a_file_is_remembered_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("ERR_SEG_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "w.safetensors"
    save_weights({"a": torch.zeros(3)}, file)
    monkeypatch.setattr(digest_module, "is_settled", lambda signature: True)
    first = weights_file_digest(file)
    with monkeypatch.context() as patch:
        patch.setattr(digest_module, "open_checkpoint", None)
        assert weights_file_digest(file) == first
    time.sleep(0.02)
    stat = file.stat()
    save_weights({"a": torch.ones(3)}, file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # equal name, size and time
    assert weights_file_digest(file) == weights_digest({"a": torch.ones(3)}) != first


def test_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("ERR_SEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_module, "is_settled", lambda signature: True)
    save_weights({"a": torch.zeros(3)}, tmp_path / "w.safetensors")
    assert weights_file_digest(tmp_path / "w.safetensors") == weights_digest({"a": torch.zeros(3)})
