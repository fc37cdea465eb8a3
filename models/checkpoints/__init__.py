"""Checkpoints: weights for a variant on one label set.

- ``labels.py``: the label sets, class number -> word.
- ``manifest.py``: the checkpoints that the project knows; ``cards.py``: what a weight file says of itself;
  ``accuracies.py``: what was measured on the operator's pictures; ``catalogue.py``: the checkpoints of this machine.
  These import no torch.
- ``weights.py``: a weight file -> a checked state dict; ``onnx_zoo.py``: the same for the ONNX Model Zoo,
  whose graphs ``onnx_graph.py`` opens.
- ``build.py``: a checkpoint -> its network with its weights.
- ``tensors.py``: crops -> a network's input; its logits -> the most probable classes.
"""
