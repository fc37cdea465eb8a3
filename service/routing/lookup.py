"""What ``model=`` names: a checkpoint or an ensemble, found in the catalogue."""

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
    """What ``model`` stands for: an ensemble, or else a checkpoint, as ``Catalogue.find`` has it.

    Raises:
        UnknownModelError: no such variant, or it has no checkpoint for that label set.
        BadParameterError: too few members or too many, one twice, or no label set that all of them have.
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
    """The ensemble that ``model`` names.

    Its label set is ``labels``, or the one that a member is written with (``googlenet@cifar10``); else the first of
    ``LABEL_SETS`` for which all members are loadable, and can be served.

    Raises: as ``find``.
    """
    names = model.removeprefix(PREFIX).split(",")
    _check_names(model, names)
    for name in names:
        catalogue.find(name, labels)
    said = {catalogue.find(name, labels).labels for name in names if labels or "@" in name}
    if len(said) > 1:
        raise BadParameterError(
            f"model={model}: its members are to answer with one label set, not {_and(sorted(said))}"
        )
    found = [rows for rows in (_members(catalogue, names, labels, s) for s in said or LABEL_SETS) if rows is not None]
    if not found:
        sets = "; ".join(f"{name} has {_and(_label_sets(catalogue, name))}" for name in names)
        raise BadParameterError(f"model={model}: its members share no label set: {sets}")

    def failing(row: Checkpoint) -> bool:
        return serves is not None and not _lacks_weights(row) and not serves(row)

    # If there is none that is whole: the one that least is missing from.
    members = min(found, key=lambda rows: [sum(lacks(row) for row in rows) for lacks in (_lacks_weights, failing)])
    for member in members:
        if member.state != "loadable":
            raise WeightsMissingError(member)
    return Ensemble(tuple(members))


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
            raise BadParameterError(f"model={model}: {variant} is in it {variants.count(variant)} times")


def _members(catalogue: Catalogue, names: Sequence[str], labels: str | None, said: str) -> list[Checkpoint] | None:
    """The members for a label set; None if one has no checkpoint for it."""
    try:
        # Where a name says its label set itself, that is the one.
        return [catalogue.find(name, labels if "@" in name else said) for name in names]
    except UnknownModelError:
        return None


def _label_sets(catalogue: Catalogue, name: str) -> list[str]:
    variant = find_variant(name.partition("@")[0])
    return [row.labels for row in catalogue.checkpoints() if row.variant == variant]


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)
