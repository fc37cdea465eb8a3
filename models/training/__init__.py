"""``topfive train``: how the checkpoints in the box were made, and how to make others. Files in reading order:

- ``recipes.py``: the table of recipes, by variant and label set.
- ``dataset.py``: a data set (``models/data/``) -> its training and test pictures, without the unreadable ones.
- ``augment.py``: random changes of a picture; ``batches.py``: batches, made ahead by threads.
- ``loss.py``: what training minimises; ``accuracy.py``: the accuracy after each epoch and at the end.
- ``run.py``: the loop; ``state.py``: the file from which an interrupted run goes on; ``curves.py``: a run as a chart.
- ``errors.py``: why a run ends early.

Every random number follows from the recipe's seed and the numbers of the epoch and the batch, never from what ran
before: a run that was killed and resumed writes the same file as one that was not.
"""
