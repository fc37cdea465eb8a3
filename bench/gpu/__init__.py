"""What a machine with a GPU gives: ``make bench-gpu``, or ``python -m bench.gpu`` in the repository's root.

__main__.py   the plan, within a budget of minutes; writes the figures and the tables
budget.py     the minutes, and what they do not suffice for
engines.py    engine loops: one network in a process of its own, by precision and batch
decoding.py   how many pictures a second the cores decode, in one process to all
serving.py    starts the service, puts it under load and stops it
callers.py    the load: processes of asyncio connections, closed and open loops, no packages needed
table.py      the figures as Markdown, and their section of docs/gpu.md

No module here imports torch into the main process, whose CUDA context would take memory from what is measured.
"""
