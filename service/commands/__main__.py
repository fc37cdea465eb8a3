"""Runs ``topfive`` as ``python -m service.commands``."""

from service.commands.main import main

main()
