"""How weights get into the local cache.

- ``import_.py``: a weight file -> a checkpoint in the cache.
- ``pull.py``: a public checkpoint, downloaded and imported.
"""
