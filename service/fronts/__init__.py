"""A front: HTTP, checks, decoding and answers, in a process without networks. A device owner does the rest.

owners.py      finds the owners of this machine and keeps a connection to each
owner.py       one owner, as a front sees it
classifier.py  has an owner classify pictures, and decodes them
"""
