"""What a checkpoint takes on a device: measured, kept, and corrected while serving.

profiles.py   profiles, and the files that keep them
measure.py    measures one profile; a process of its own
precision.py  chooses the precision on a GPU, before that, with precision_pictures.py; another process
child.py      the command line of both
profiler.py   measures what has no profile, for ``topfive profile`` and at the start of a service
forecast.py   a profile, corrected by what batches took since
"""
