"""Who may do what, and how often; knows no protocol. ``keys.py`` is the file of keys, ``keyring.py`` the keys that a
running process accepts, ``rates.py`` how much a caller may ask for, ``cooldown.py`` how often one thing may be done.

HTTP's side is ``http/access.py``: which path needs which role. ``inference/rated.py`` counts pictures and device time.
"""
