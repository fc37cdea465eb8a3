"""``topfive evaluate``: how often networks are right, alone and together. Files in reading order:

- ``crops.py``: the crops of a picture that a network answers for: one, as in serving, or the papers' 10 and 144.
- ``batches.py``: pictures of a data set (``models/data/``) -> batches of those crops, made ahead by threads.
- ``answers.py``: crops -> probabilities -> answers; training measures with it too.
- ``evaluate.py``: one pass over the pictures by all networks at once, and their ensemble.
- ``measures.py``: answers -> error, calibration and confusion; ``report.py``: all of it as JSON; ``chart.py``: the
  confusion matrix as a chart.
"""
