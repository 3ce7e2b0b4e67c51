"""What the paper measures of data and vocabularies, and figures of it (``err-seg analyze``, ``err-seg figures``)."""
