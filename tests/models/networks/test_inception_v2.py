"""BN-Inception against figure 5 of its paper."""

from __future__ import annotations

from tests.networks import convolutions, meta, top_shapes


def test_inception_v2_has_the_sizes_of_figure_five_and_no_5x5() -> None:
    network = meta("inception_v2")
    found = {name: shape[:2] for name, shape in top_shapes(network, 224).items()}
    assert found == {
        "conv1": (64, 112),
        "pool1": (64, 56),
        "conv2_reduce": (64, 56),
        "conv2": (192, 56),
        "pool2": (192, 28),
        "inception3a": (256, 28),
        "inception3b": (320, 28),
        "inception3c": (576, 14),
        **{f"inception4{module}": (576, 14) for module in "abcd"},
        "inception4e": (1024, 7),
        "inception5a": (1024, 7),
        "inception5b": (1024, 7),
        "avgpool": (1024, 1),
        "fc": (1000,),
    }
    assert {tuple(c.kernel_size) for c in convolutions(network)[1:]} == {(1, 1), (3, 3)}
    # A bias before batch norm would have no effect (section 3.2).
    assert all(c.bias is None for c in convolutions(network))
