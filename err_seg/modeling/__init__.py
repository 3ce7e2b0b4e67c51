"""The network of ERR-Seg, one file for each box of the paper's figure.

======================  =====================================================================
``clip.py``             CLIP: released open_clip models, text tower, loading
``encoder.py``          what every image tower outputs and declares
``hierarchical.py``     features F1..F4, E32 and HSM's E16 from a trunk with stages
``convnext.py``         ConvNeXt's head and HSM's branch
``fastvit.py``          FastViT's head and HSM's branch, for real time
``vit.py``              ViT tokens, for Table XII
``words.py``            class names to text embeddings, cached by ``text_embeddings.py``
``hsm.py``              HSM: hierarchical cost maps, and their embedding X
``crm.py``              CRM: training-free choice of the K classes an image needs
``escf.py``             ESCF: SFM (with SSR) and CFM (with CSR) under image and text guidance
``gud.py``              GUD: gradual upsampling decoder
``head.py``             everything after CLIP, built of the parts above
``layers.py``           what SFM and CFM share: guided projections, attention, (star) MLP
``loss.py``             the training loss on the kept classes
``segmentation.py``     the compact result: K maps and their class indices
``views.py``            what a result can do: pictures of itself, files, regions, other programs
``refine.py``           borders that follow the edges of the image, by a guided filter
``tiles.py``            large images: windows that speak of the same K classes, blended
``smoothing.py``        videos: each frame averaged with those around it
``prediction.py``       one call of predict: what it asks for, and its images, read ahead and in batches
``err_seg.py``          the whole network, and its use on images and words
======================  =====================================================================

Axes, in every docstring and shape comment of this package:

B  images of a batch            T  classes of the vocabulary     K  classes kept by CRM
C  channels                     S  side of the network's input   H, W  the stride-16 grid, S/16
P  prompts of a class           L  tokens of a prompt            R  ranks that CRM looks at
"""

from err_seg.modeling.crm import CRM
from err_seg.modeling.err_seg import ERRSeg
from err_seg.modeling.escf import ESCF
from err_seg.modeling.gud import GUD
from err_seg.modeling.head import Head, Prediction
from err_seg.modeling.hsm import CostEmbedding, CostMaps
from err_seg.modeling.loss import segmentation_loss
from err_seg.modeling.segmentation import Segmentation

__all__ = [
    "CRM",
    "ESCF",
    "GUD",
    "CostEmbedding",
    "CostMaps",
    "ERRSeg",
    "Head",
    "Prediction",
    "Segmentation",
    "segmentation_loss",
]
