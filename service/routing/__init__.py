"""Which checkpoint answers a picture, whether the picture is admitted, and what a refused caller is told.

router.py        decides for each picture, with the others
lookup.py        what the caller names
choose.py        picks: a pure function, which predicts how long each checkpoint would take
ensembles.py     several checkpoints that compute one picture, as one candidate
last_choices.py  what answered a budget last, which only something clearly better replaces
refusal.py       the words of a refusal
admission.py     pictures that were admitted are not made late by later ones
retry_after.py   when each refused caller may come back
safety.py        how far predictions can be trusted, by how they came true

Pure Python: no framework, no device.
"""
