"""The layers of a network as rows, in the form of table 1 of the GoogLeNet paper.

A row is a layer, or a 1x1 reduction with the convolution after it, or a whole inception module. A module's branches are
in the paper's columns ("#3x3 reduce", "#3x3", ...) if they have the paper's form, else described in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from models.analysis.costs import Analysis, Layer, Pair
from models.networks.tracing import Shape

Chain = tuple[Layer, ...]

#: The kernels of a branch -> its columns in the papers of GoogLeNet and BN-Inception.
_COLUMNS: dict[tuple[Pair, ...], tuple[str, ...]] = {
    ((1, 1),): ("#1x1",),
    ((1, 1), (3, 3)): ("#3x3 reduce", "#3x3"),
    ((1, 1), (5, 5)): ("#5x5 reduce", "#5x5"),
    ((1, 1), (3, 3), (3, 3)): ("double #3x3 reduce", "double #3x3"),
}
_ORDER = (*dict.fromkeys(name for names in _COLUMNS.values() for name in names), "pool proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row; ``costs.Layer`` explains the numbers."""

    name: str
    type: str
    patch: str
    """Kernel and stride, "7x7/2"; for a module only a stride above one, "/2"."""
    output: Shape
    depth: int
    """Layers with weights on its longest path."""
    branches: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    """The branches in the paper's columns; empty if they have another form."""
    params: int
    multiply_adds: int
    activations: int
    receptive_field: Pair
    jump: Pair


def layer_rows(analysis: Analysis) -> list[Row]:
    """The table's rows, from the picture to the logits."""
    layers = {layer.name: layer for layer in analysis.layers}
    rows = [_row(group, layers) for group in _groups(analysis.layers)]
    pools = [row.columns["pool proj"] for row in rows if "pool proj" in row.columns]
    if all(pool.startswith("max + ") and not pool.endswith("through") for pool in pools):
        # As in the paper, which does not name the pool where all modules have the same kind.
        for row in rows:
            if "pool proj" in row.columns:
                row.columns["pool proj"] = row.columns["pool proj"].removeprefix("max + ")
    return rows


def columns(rows: Sequence[Row]) -> list[str]:
    """The columns that these rows use, in the paper's order; none if the branches of any module have another form."""
    if any(row.branches and not row.columns for row in rows):
        return []
    return [name for name in _ORDER if any(name in row.columns for row in rows)]


def _groups(layers: Sequence[Layer]) -> Iterator[Chain]:
    """Yields the layers of each row."""
    users: dict[str, list[Layer]] = {}
    for layer in layers:
        for source in layer.sources:
            users.setdefault(source, []).append(layer)

    def reduces(layer: Layer) -> bool:
        """Whether a layer is a 1x1 convolution whose only user is a larger one, as in the paper's row conv2."""
        after = users.get(layer.name, [])
        return (
            layer.kind == "convolution"
            and layer.kernel == (1, 1)
            and layer.module is None
            and len(after) == 1
            and after[0].kind == "convolution"
            and after[0].kernel > (1, 1)
        )

    reduction: Layer | None = None
    for module, group in groupby(layers, lambda layer: layer.module):
        if module is not None:
            yield tuple(group)
            continue
        for layer in group:
            if reduces(layer):
                reduction = layer
            else:
                yield (layer,) if reduction is None else (reduction, layer)
                reduction = None


def _row(group: Chain, layers: dict[str, Layer]) -> Row:
    last, module = group[-1], group[-1].module
    chains = [] if len(group) == 1 else _chains(group, layers)
    before = [layers[source] for source in group[0].sources]
    jump_before = before[0].jump if before else (1, 1)
    stride = last.jump[0] // jump_before[0]
    ends = [chain[-1] for chain in chains] or [last]
    output = last.output if module is None else (sum(_maps(end) for end in dict.fromkeys(ends)), *last.output[1:])
    return Row(
        # "conv1.conv" is one layer for a reader, with its batch norm and ReLU: "conv1".
        name=module or last.name.removesuffix(".conv"),
        type="inception" if module is not None else last.kind,
        patch=(f"/{stride}" if stride > 1 else "") if module is not None else _patch(last),
        output=output,
        depth=max(end.depth for end in ends) - max((layer.depth for layer in before), default=0),
        branches=tuple(", ".join(_word(layer) for layer in chain) for chain in chains),
        columns=_columns(chains),
        params=sum(layer.params for layer in group),
        multiply_adds=sum(layer.multiply_adds for layer in group),
        activations=sum(layer.activations for layer in group),
        receptive_field=(
            max(end.receptive_field[0] for end in ends),
            max(end.receptive_field[1] for end in ends),
        ),
        jump=last.jump,
    )


def _chains(group: Chain, layers: dict[str, Layer]) -> list[Chain]:
    """The paths through a group from its input to its output, in the order of its concatenation."""
    inside = {layer.name: layer for layer in group}
    fed = {source for layer in group for source in layer.sources}
    ends = {layer.name for layer in group if layer.name not in fed}
    # The next layer takes all of them, in the order of the concatenation.
    order = next((layer.sources for layer in layers.values() if ends <= set(layer.sources)), tuple(inside))

    def way(layer: Layer) -> Chain:
        sources = [inside[source] for source in layer.sources if source in inside]
        return (*way(sources[0]), layer) if sources else (layer,)

    return [way(inside[name]) for name in order if name in ends]


def _columns(chains: Sequence[Chain]) -> dict[str, str]:
    found: dict[str, str] = {}
    for chain in chains:
        kinds = tuple(layer.kind for layer in chain)
        if kinds[0] != "convolution":
            names: tuple[str, ...] = ("pool proj",)
            word = chain[0].kind.split()[0]
            values = [f"{word} + {_maps(chain[1])}" if len(chain) > 1 else f"{word} + pass through"]
        else:
            names = _COLUMNS.get(tuple(layer.kernel for layer in chain), ())
            # Of two 3x3 layers the last gives the number of maps.
            values = [str(_maps(chain[0])), str(_maps(chain[-1]))][: len(names)]
        if not names or any(name in found for name in names):
            return {}
        found.update(zip(names, values, strict=True))
    return found


def _maps(layer: Layer) -> int:
    return layer.output[0]


def _patch(layer: Layer) -> str:
    if layer.kind in ("linear", "LRN", "dropout"):
        return ""
    return f"{layer.kernel[0]}x{layer.kernel[1]}/{layer.stride[0]}"


def _word(layer: Layer) -> str:
    size = f"{layer.kernel[0]}x{layer.kernel[1]}"
    stride = f"/{layer.stride[0]}" if layer.stride != (1, 1) else ""
    if layer.kind == "convolution":
        return f"{size}{stride} {_maps(layer)}"
    return f"{layer.kind} {size}{stride}"
