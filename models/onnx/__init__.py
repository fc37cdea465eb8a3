"""Checkpoints as ONNX graphs, from 8-bit crops to classes, which a CPU serves without torch.

- ``export.py``: a checkpoint -> its graph, compared with torch.
- ``graph_cache.py``: graphs on disk, each exported once.
"""
