"""``topfive evaluate``: how often networks are right, alone and together.

Read in this order:

- ``crops.py``: the crops of a picture that a network is asked about: one, as in serving, or the papers' 10 and 144.
- ``batches.py``: pictures of a data set (``models/data/``) -> batches of those crops, made ahead by threads.
- ``answers.py``: crops -> probabilities -> what was answered; training measures by the same.
- ``evaluate.py``: the pass over the pictures, by all networks at once, and their ensemble.
- ``measures.py``: answers -> error, calibration and confusion; ``report.py``: all of it as JSON; ``chart.py``: the
  confusion matrix.
"""
