"""The options that TopFive adds to Locust's, each also an environment variable ``TOPFIVE_LOADTEST_<NAME>``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, NoReturn, get_args

from loadtest._requests import USERS, Kind
from loadtest._values import SHARES, number, one_of, read_seed, read_shares
from traffic.arrivals import SHAPES, RateProfile, Shape, rate_profile

Arrivals = Literal["closed", "poisson", "gamma", "trace"]
#: How long Locust waits at the end for requests in flight, in seconds; its own default is not to wait.
_STOP_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run, read and checked against each other."""

    model: str | None
    labels: str | None
    pictures: str | None
    shares: dict[Kind, int]
    arrivals: Arrivals
    rate: float | None
    cv: float | None
    trace: Path | None
    rate_profile: Shape
    rate_to: float | None
    rate_from_s: float
    rate_for_s: float
    seed: int
    warm_up: float
    results: Path | None

    @property
    def open_loop(self) -> bool:
        return self.arrivals != "closed"

    @property
    def profile(self) -> RateProfile:
        """The rate profile of an open loop that does not replay a trace."""
        assert self.rate is not None
        return rate_profile(self.rate_profile, self.rate, self.rate_to or self.rate, self.rate_from_s, self.rate_for_s)


_READ: dict[str, tuple[str | None, Callable[[str], Any], str]] = {
    "model": (None, str, "network that all but BudgetUsers ask for; by default googlenet, or else the service's first"),
    "labels": (None, str, "label set that BudgetUsers ask for; by default the service's own choice"),
    "pictures": (None, str, "photographs, digits, or a folder of picture files; by default what the model is for"),
    "shares": (
        SHARES,
        read_shares,
        "how many users (closed loop) or requests (open loop) are of which kind; 0 removes a kind",
    ),
    "arrivals": (
        "closed",
        one_of(get_args(Arrivals)),
        "closed: each user sends its next request when it has its answer. Open loop: poisson, gamma (--cv) and trace "
        "(--trace) send each request when it is due, over as many connections as there are users (-u)",
    ),
    "rate": (None, number(0, above=True), "requests a second of all users together, for poisson and gamma"),
    "cv": (
        None,
        number(0, above=True),
        "coefficient of variation of the gaps with gamma: above 1 bursts, below 1 more even arrivals",
    ),
    "trace": (None, Path, "CSV file with a column seconds, ascending, and optionally user; the run ends when it ends"),
    "rate-profile": (
        "constant",
        one_of(SHAPES),
        "how the rate changes: constant, step to --rate-to, spike to it and back, or ramp",
    ),
    "rate-to": (None, number(0, above=True), "requests a second after the step, in the spike or after the ramp"),
    "rate-from-s": ("10", number(0), "seconds after the beginning at which the step, spike or ramp begins"),
    "rate-for-s": ("10", number(0, above=True), "seconds that the spike or the ramp lasts"),
    "seed": (
        "8",
        read_seed,
        "seed of pictures, budgets and arrivals: the same seed gives the same requests at the same times",
    ),
    "warm-up": ("0", number(0), "seconds at the beginning that are not measured"),
    "results": (None, Path, "JSON file that the results are written to"),
}


_IN = " " * 8


class _Help(argparse.Action):
    """Prints TopFive's options: Locust prints its own --help before it reads any locustfile."""

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> NoReturn:
        lines = []
        for name, (default, _, text) in _READ.items():
            shown = f"{text} (default {default})" if default is not None else text
            lines += [f"  --{name}  [{_variable(name)}]", *wrap(shown, 100, initial_indent=_IN, subsequent_indent=_IN)]
        print("TopFive's options, beside Locust's own (--help):", *lines, sep="\n")  # noqa: T201 - a command's output
        parser.exit(0)


def _variable(name: str) -> str:
    return f"TOPFIVE_LOADTEST_{name.upper().replace('-', '_')}"


def add_options(parser: Any) -> None:
    """Adds the options to Locust's parser, which is configargparse's."""
    group = parser.add_argument_group("TopFive options")
    for name, (default, read, text) in _READ.items():
        group.add_argument(f"--{name}", default=default, type=_checked(read), help=text, env_var=_variable(name))
    group.add_argument("--help-loadtest", action=_Help, nargs=0, help="show the options above and exit")
    parser.set_defaults(stop_timeout=str(_STOP_TIMEOUT_S))
    read_all = parser.parse_args

    def parse_args(*arguments: Any, **named: Any) -> Any:
        """Parses the options and ends the command if some of them do not go together, before anything starts."""
        parsed = read_all(*arguments, **named)
        try:
            read_options(parsed)
            _refuse_processes(parsed)
        except ValueError as error:
            parser.error(str(error))
        return parsed

    parser.parse_args = parse_args


def _checked(read: Callable[[str], Any]) -> Callable[[str], str]:
    """Checks a value but keeps its text, since Locust's web page puts texts into the options too."""

    def check(text: str) -> str:
        read(text)
        return text

    return check


def read_options(parsed: Any) -> Options:
    """Reads the options from Locust's namespace.

    Raises:
        ValueError: an option has a bad value, or some do not go together.
    """
    values: dict[str, Any] = {}
    for name, (default, read, _) in _READ.items():
        text = getattr(parsed, name.replace("-", "_"), None) or default
        try:
            values[name.replace("-", "_")] = None if text is None else read(text)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--{name}: {error}") from None
    options = Options(**{field.name: values[field.name] for field in fields(Options)})
    _refuse_contradictions(options)
    return options


def _refuse_contradictions(options: Options) -> None:
    drawn = options.arrivals in ("poisson", "gamma")
    needed: list[tuple[bool, object, str, str]] = [
        (drawn, options.rate, "--rate", f"--arrivals {options.arrivals} needs --rate, requests a second"),
        (options.arrivals == "gamma", options.cv, "--cv", "--arrivals gamma needs --cv, which is 1 for poisson"),
        (options.arrivals == "trace", options.trace, "--trace", "--arrivals trace needs --trace FILE"),
        (
            drawn and options.rate_profile != "constant",
            options.rate_to,
            "--rate-to",
            f"--rate-profile {options.rate_profile} needs --rate-to, requests a second",
        ),
    ]
    for wanted, value, name, text in needed:
        if wanted and value is None:
            raise ValueError(text)
        if not wanted and value is not None:
            beside = f"--arrivals {options.arrivals} --rate-profile {options.rate_profile}"
            raise ValueError(f"{name} has no effect with {beside}")
    if options.rate_profile != "constant" and not drawn:
        raise ValueError(f"--rate-profile {options.rate_profile} has no effect with --arrivals {options.arrivals}")
    if options.results is not None and not options.results.absolute().parent.is_dir():
        raise ValueError(f"--results {options.results}: there is no folder {options.results.absolute().parent}")


def _refuse_processes(parsed: Any) -> None:
    for name in ("processes", "master", "worker"):
        if getattr(parsed, name, None):
            raise ValueError(f"--{name}: one process must hold all arrivals and results; start Locust without --{name}")


def users_of(shares: dict[Kind, int], names: Sequence[str]) -> dict[Kind, int]:
    """The shares of those users that Locust was told to start.

    Raises:
        ValueError: none of them has a share.
    """
    left = {kind: share for kind, share in shares.items() if share and USERS[kind] in names}
    if not left:
        raise ValueError(f"--shares leaves no requests for {', '.join(sorted(names))}")
    return left
