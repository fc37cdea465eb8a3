"""``topfive train``: how the checkpoints in the box were made, and how to make others.

Read in this order:

- ``recipes.py``: the literal table of recipes, by variant and label set.
- ``dataset.py``: a data set (``models/data/``) -> training and test pictures, the unreadable ones left out.
- ``augment.py``: what is drawn at random for a picture; ``batches.py``: batches, made ahead by threads.
- ``loss.py``, ``accuracy.py``: what is minimised, and what is measured.
- ``run.py``: the loop; ``state.py``: the file from which it goes on after a kill; ``curves.py``: how it went.

Whatever is random follows from the recipe's seed and the number of the epoch and batch, never from what ran before: a
run that was killed and resumed writes the same file as one that was not.
"""
