"""Lookup of the value of ``model=``: a checkpoint or an ensemble of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.checkpoints.catalogue import Catalogue, Checkpoint, WeightsMissingError
from models.checkpoints.labels import LABEL_SETS
from models.networks.variants import UnknownModelError, find_variant
from service.domain.ensemble import LEAST_MEMBERS, MOST_MEMBERS, PREFIX, Ensemble
from service.domain.errors import BadParameterError


def find(
    catalogue: Catalogue, model: str, labels: str | None = None, serves: Callable[[Checkpoint], bool] | None = None
) -> Checkpoint | Ensemble:
    """The ensemble or the checkpoint that ``model`` names.

    Args:
        catalogue: the checkpoints of this machine.
        model: a variant, an alias, ``variant@label_set``, or ``ensemble:NAME,NAME``.
        labels: the label set, if the caller states one.
        serves: whether a checkpoint can be served now, as for ``Catalogue.find``.

    Raises:
        UnknownModelError: there is no such variant, or it has no checkpoint for that label set.
        BadParameterError: an ensemble has too few or too many members, one twice, or no label set that all share.
        WeightsMissingError: weights are not on this machine.
    """
    if model.startswith(PREFIX):
        return find_ensemble(catalogue, model, labels, serves)
    checkpoint = catalogue.find(model, labels, serves)
    if checkpoint.state != "loadable":
        raise WeightsMissingError(checkpoint)
    return checkpoint


def find_ensemble(
    catalogue: Catalogue, model: str, labels: str | None = None, serves: Callable[[Checkpoint], bool] | None = None
) -> Ensemble:
    """The ensemble that ``model`` names. Arguments and errors are those of ``find``.

    Its label set is ``labels``, or the one that is written after a member's name (``googlenet@cifar10``); else the
    first of ``LABEL_SETS`` for which all members are loadable and can be served.
    """
    names = model.removeprefix(PREFIX).split(",")
    _check_names(model, names)
    for name in names:
        catalogue.find(name, labels)
    said = {catalogue.find(name, labels).labels for name in names if labels or "@" in name}
    if len(said) > 1:
        raise BadParameterError(f"model={model}: its members must have one label set, not {_and(sorted(said))}")
    found = [rows for rows in (_members(catalogue, names, labels, s) for s in said or LABEL_SETS) if rows is not None]
    if not found:
        sets = "; ".join(f"{name} has {_and(_label_sets(catalogue, name))}" for name in names)
        raise BadParameterError(f"model={model}: its members share no label set: {sets}")

    def failing(row: Checkpoint) -> bool:
        return serves is not None and not _lacks_weights(row) and not serves(row)

    # Where no label set is complete, the one that lacks the fewest members: its error says how to complete it.
    members = min(found, key=lambda rows: [sum(lacks(row) for row in rows) for lacks in (_lacks_weights, failing)])
    for member in members:
        if member.state != "loadable":
            raise WeightsMissingError(member)
    names_of = frozenset(member.name for member in members)
    known = (accuracy.top1 for _, accuracy in catalogue.together() if accuracy.names == names_of)
    return Ensemble(tuple(members), next(known, None))


def _lacks_weights(checkpoint: Checkpoint) -> bool:
    return checkpoint.state != "loadable"


def _check_names(model: str, names: Sequence[str]) -> None:
    if not LEAST_MEMBERS <= len(names) <= MOST_MEMBERS or "" in names:
        raise BadParameterError(
            f"model={model}: an ensemble is written ensemble:NAME,NAME with {LEAST_MEMBERS} to {MOST_MEMBERS} names"
        )
    variants = [find_variant(name.partition("@")[0]).name for name in names]
    for variant in variants:
        if variants.count(variant) > 1:
            raise BadParameterError(f"model={model}: {variant} is named {variants.count(variant)} times")


def _members(catalogue: Catalogue, names: Sequence[str], labels: str | None, said: str) -> list[Checkpoint] | None:
    """The members for a label set; None if one of them has no checkpoint for it."""
    try:
        # A label set that is written after a name decides.
        return [catalogue.find(name, labels if "@" in name else said) for name in names]
    except UnknownModelError:
        return None


def _label_sets(catalogue: Catalogue, name: str) -> list[str]:
    variant = find_variant(name.partition("@")[0])
    return [row.labels for row in catalogue.checkpoints() if row.variant == variant]


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)
