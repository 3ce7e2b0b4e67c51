"""What the configuration's numbers become in the network."""

import pytest


def test_drop_path_rises_from_layer_to_layer(toy_model):
    escf = toy_model("MODEL.ESCF.NUM_LAYERS", 3, "MODEL.ESCF.DROP_PATH", 0.6).head.escf
    rates = [(layer.sfm.drop_path.drop_prob, layer.cfm.drop_path.drop_prob) for layer in escf.layers]
    assert rates == [(0, 0), (pytest.approx(0.2),) * 2, (pytest.approx(0.4),) * 2]
