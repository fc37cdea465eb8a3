"""The ``topfive`` command line: a file for each command; ``main.py`` registers them."""
