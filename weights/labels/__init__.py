"""Label sets, a class a line; ``models/labels.py`` reads them."""
