"""Classification of one picture within one budget, in whatever protocol it came.

``classifier.py`` asks the router for a decision and a predictor for the prediction; ``ensemble.py`` makes one
prediction out of several networks'.
"""
