"""A process put together from the rooms below, from settings and without Ray.

local.py        the whole service in one process, a device owner, or predictors alone
front.py        a front, which needs neither torch nor FastAPI
interpreter.py  Python's own settings in a process that serves
"""
