"""Prediction of a whole data set with Ray Data: :mod:`err_seg.jobs.ray_data` under the name users know."""

from err_seg.jobs.ray_data import Predictor, predict_rows

__all__ = ["Predictor", "predict_rows"]
