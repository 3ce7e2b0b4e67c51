"""What the paper measures of data and vocabularies, and figures of it (``err-seg analyze``, ``err-seg figures``).

============================  =================================================================================
``classes_per_image.py``      classes per image, and the redundant rest of the vocabulary (Table I)
``class_recall.py``           the share of the classes present that CRM keeps (why Table XIII saturates)
``vocabulary_similarity.py``  how much of a vocabulary is in the training vocabulary (Table IV)
``attention_share.py``        how much of CFM's attention redundant classes take (Proposition 1)
``precision_error.py``        what bf16 and fp16 change in results
``attention_comparison.py``   an image's attention with all classes kept and with K of them (Fig. 2)
``image_grid.py``             images beside what is predicted for lists of words (Fig. 8 to 10)
============================  =================================================================================
"""
