"""Which checkpoint answers a picture, whether the picture is admitted, and what a refused caller is told.

``router.py`` decides for each picture. It looks up what the caller names (``lookup.py``), picks with a pure function
(``choose.py``) that predicts how long each checkpoint would take, and sees an ensemble as one (``ensembles.py``). It
words refusals (``refusal.py``), protects pictures that were admitted before (``admission.py``), spreads refused
callers (``retry_after.py``), and learns how far its predictions can be trusted (``safety.py``). Pure Python: no
framework, no device.
"""
