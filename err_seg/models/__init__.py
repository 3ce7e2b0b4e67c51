"""Models: built from a configuration, saved to and loaded from files, folders and the Hugging Face hub."""

from err_seg.models.hub import load
from err_seg.models.pretrained import push_to_hub, save_pretrained
from err_seg.prediction.model import ERRSeg

ERRSeg.from_pretrained = staticmethod(load)
ERRSeg.save_pretrained = save_pretrained
ERRSeg.push_to_hub = push_to_hub
