"""The network of ERR-Seg, one file for each box of the paper's figure.

======================  =====================================================================
``clip.py``             CLIP: released open_clip models, text tower, loading
``encoder.py``          what every image tower outputs and declares
``hierarchical.py``     features F1..F4, E32 and HSM's E16 from a trunk with stages
``convnext.py``         ConvNeXt's head and HSM's branch
``fastvit.py``          FastViT's head and HSM's branch, for real time
``vit.py``              ViT tokens, for Table XII
``hsm.py``              HSM: hierarchical cost maps, and their embedding X
``crm.py``              CRM: training-free choice of the K classes an image needs
``escf.py``             ESCF: SFM (with SSR) and CFM (with CSR) under image and text guidance
``gud.py``              GUD: gradual upsampling decoder
``head.py``             everything after CLIP, built of the parts above
``layers.py``           what SFM and CFM share: guided projections, attention, (star) MLP
``loss.py``             the training loss on the kept classes
``err_seg.py``          the whole network
======================  =====================================================================

Axes, in every docstring and shape comment of this package:

B  images of a batch            T  classes of the vocabulary     K  classes kept by CRM
C  channels                     S  side of the network's input   H, W  the stride-16 grid, S/16
P  prompts of a class           L  tokens of a prompt            R  ranks that CRM looks at
"""

from err_seg.modeling.crm import CRM
from err_seg.modeling.err_seg import ERRSegNetwork
from err_seg.modeling.escf import ESCF
from err_seg.modeling.gud import GUD
from err_seg.modeling.head import Head, Prediction
from err_seg.modeling.hsm import CostEmbedding, CostMaps
from err_seg.modeling.loss import segmentation_loss

__all__ = [
    "CRM",
    "ESCF",
    "GUD",
    "CostEmbedding",
    "CostMaps",
    "ERRSegNetwork",
    "Head",
    "Prediction",
    "segmentation_loss",
]
