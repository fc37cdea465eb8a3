"""Pictures: encoded bytes -> the 8-bit crop that a checkpoint needs. Without torch. Files in reading order:

- ``pictures.py``: the bytes of a file -> an upright 8-bit picture; ``errors.py``: why bytes are refused.
- ``jpeg.py``, ``png.py``, ``webp.py``, ``gif.py``, ``bmp.py``: one file format each, read before or instead of Pillow.
- ``exif.py``: which way up a picture is; ``transparency.py``: transparent pixels over white.
- ``file_kinds.py``: the names of file formats that are recognised but not decoded.
- ``baseline.py``: which JPEG files a hardware decoder may have.
- ``outline.py``, ``cost.py``: what a picture's header says of the work of decoding it, and what that takes.
- ``rates.py``: measures, on this machine, the rates that ``cost.py`` computes with.
- ``preprocess.py``: a picture -> a crop, and the numbers that turn the crop into a network's input.
"""
