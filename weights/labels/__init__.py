"""Label sets, a class a line; ``models/checkpoints/labels.py`` reads them."""
