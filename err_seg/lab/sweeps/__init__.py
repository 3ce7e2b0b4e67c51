"""Sweeps: tables of variants and seeds, each measured once, resumable at any moment.

====================  =============================================================================
``definition.py``     a sweep's YAML file: variants, seeds, the paper's values, the plot
``plan.py``           from variant and seed to a configuration, and to folders that sweeps share
``run_steps.py``      the training and the evaluation of a run, each a process
``executor.py``       checks a sweep and runs the missing steps; killed ones continue
``display.py``        progress on the screen
``results.py``        values of the runs that are done
``tables.py``         the plan as text; tables in Markdown, CSV and JSON; mIoU over the swept value
``results_page.py``   all tables of the miniature world on one page (``err-seg results``)
====================  =============================================================================

The command is ``err-seg sweep``; ``configs/ablations`` holds the paper's sweeps.
"""
