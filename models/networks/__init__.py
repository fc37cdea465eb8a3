"""The networks: architectures without weights. They do not depend on checkpoints or pictures.

- ``variants.py``: the table of architectures, one row per variant; ``memory.py``: what a network costs.
- ``lenet.py``, ``alexnet.py``, ``zfnet.py``, ``nin.py``, ``vgg.py``, ``googlenet.py``, ``googlenet_bn.py``,
  ``inception_v2.py``, ``inception_v3.py``: the networks of the papers, over the shared ``layers.py``.
- ``build.py``: a row of the table -> its network.
- ``tracing.py``: a network -> the graph of its layers, and the shapes of their outputs.
"""
