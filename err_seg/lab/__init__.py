"""What is measured: sweeps and tables of the paper, analyses, benchmarks, the miniature world."""
