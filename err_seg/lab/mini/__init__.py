"""What is run on the miniature world (:mod:`err_seg.mini`), where a network trains in minutes on a CPU."""
