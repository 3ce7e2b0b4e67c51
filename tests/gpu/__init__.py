"""Checks of what only a GPU can show, on the miniature world; `bash scripts/gpu_checks.sh` makes a page of them.

Each check is a test; the lines of Markdown that it adds to the fixture ``lines`` go to the page. Without a GPU the
script runs the same checks on the CPU, shortened, as a rehearsal. What only CUDA has is then left out, and the page
says so.
"""
