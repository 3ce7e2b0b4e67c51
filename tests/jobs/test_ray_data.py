"""Ray Data gives the labels that the network gives, from two workers, and a row for what cannot be read."""

import numpy as np
import pytest
from PIL import Image

import err_seg
from tests.helpers.rle import labels_from_rle
from tests.helpers.toy import TOY

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def test_two_workers(toy_model, tmp_path):
    from err_seg.ray_data import predict_rows

    cfg = err_seg.get_cfg(None, TOY)
    err_seg.save_weights(toy_model(), tmp_path / "toy.safetensors", {"config": cfg.dump()})
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), dtype=np.uint8)).save(photos / f"{i}.png")
    (photos / "bad.png").write_text("text")
    classes = ["cat", "sofa, couch", "wall"]

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        images = ray.data.read_binary_files(str(photos), include_paths=True)
        options = {"concurrency": 2, "batch_size": 2, "num_cpus": 1, "device": "cpu"}
        rows = predict_rows(images, str(tmp_path / "toy.safetensors"), classes, **options)
        rows.write_parquet(str(tmp_path / "labels"))
        written = ray.data.read_parquet(str(tmp_path / "labels")).take_all()
    finally:
        ray.shutdown()

    assert len(written) == 7
    model = err_seg.load(tmp_path / "toy.safetensors", device="cpu")
    for row in written:
        if row["path"].endswith("bad.png"):
            assert "not an image" in row["error"]
            continue
        size = [row["height"], row["width"]]
        segments = [
            {"file_name": "x", "category_id": label, "segmentation": {"size": size, "counts": counts}}
            for label, counts in zip(row["labels"], row["counts"], strict=True)
        ]
        path = photos / row["path"].rsplit("/", 1)[1]
        # workers may sum up in another order, which settles near-ties differently
        assert (labels_from_rle(segments) == model.predict([path], classes)[0].labels.numpy()).mean() > 0.99
        assert sum(row["pixels"]) == row["height"] * row["width"]
        assert row["error"] == ""
