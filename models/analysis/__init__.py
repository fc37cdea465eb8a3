"""What networks are made of and what they cost, by exact count.

- ``costs.py``: every layer of a network, counted.
- ``layer_table.py``: the layers as rows, in the form of the papers' tables.
- ``description.py``: both for one checkpoint, and networks side by side.
- ``history.py``: the results of the ImageNet challenge; ``plots.py``: charts of all these.
"""
