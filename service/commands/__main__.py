"""``python -m service.commands`` is ``topfive``."""

from service.commands.main import main

main()
