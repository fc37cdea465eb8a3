"""Classification of one picture within one budget, for every protocol.

``classifier.py`` asks the router for a decision and a predictor for the prediction; ``ensemble.py`` makes one
prediction out of several networks'.
"""
