"""Models: built from a configuration, saved to and loaded from files, folders and the Hugging Face hub.

======================  ================================================================
``build.py``            configuration to network; the only place that reads ``cfg.MODEL``
``checkpoint.py``       files of weights: saving, strict loading without unpickling, digests
``checkpoint_names.py`` the names that weights had in other versions and programs
``hub_files.py``        which file of which repository holds a model
``hub.py``              ``err_seg.load``: models by name, file, folder or repository
``pretrained.py``       ``save_pretrained`` and ``push_to_hub``
``card.py``             the model card
``check.py``            whether a model segments as it should: ``err-seg check``
======================  ================================================================
"""

from err_seg.models.hub import load
from err_seg.models.pretrained import push_to_hub, save_pretrained
from err_seg.prediction.model import ERRSeg, ModelHub

ERRSeg.hub = ModelHub(load, save_pretrained, push_to_hub)
