"""A promotion in steps as a command line says it: `--steps 1,10,50,100 --hold 5m --rules p99=50ms,errors=1%`."""

from __future__ import annotations

import re

import msgspec

from ranking.errors import RegistryError
from ranking.registry import Plan, Rules, share_of

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
SHARE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
SHARES = ("errors", "degraded", "defaulted", "overlap")


def read_plan(steps: str, hold: str, least: int, rules: str) -> Plan:
    """Raises RegistryError, which names the option and what is wrong with it."""
    try:
        shares = [float(one) / 100 for one in steps.split(",")]
    except ValueError as error:
        raise RegistryError(f"--steps {steps}: percentages are expected, such as 1,10,50,100") from error
    try:
        return msgspec.convert(
            {"steps": shares, "hold_s": seconds("--hold", hold), "least": least, "rules": read_rules(rules)}, Plan
        )
    except msgspec.ValidationError as error:
        raise RegistryError(f"--steps {steps}, --hold {hold}, --least {least}: {error}") from error


def read_rules(text: str) -> Rules:
    """Raises RegistryError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        field = "p99_s" if name == "p99" else name
        if field in found:
            raise RegistryError(f"--rules {text}: {name} is there twice")
        if name == "p99":
            found[field] = seconds(f"--rules {part.strip()}", value)
        elif name in SHARES:
            if (share := SHARE.fullmatch(value)) is None or float(share[1]) > 100:
                raise RegistryError(f"--rules {part.strip()}: a share is expected, such as {name}=1%")
            found[field] = float(share[1]) / 100
        else:
            raise RegistryError(f"--rules {part.strip()}: {name!r} is none of p99, {', '.join(SHARES)}")
    return Rules(**found)


def seconds(option: str, text: str) -> float:
    """Raises RegistryError."""
    if (found := DURATION.fullmatch(text)) is None:
        raise RegistryError(f"{option}: {text!r} is no duration, such as 50ms, 30s or 5m")
    return float(found[1]) * UNITS[found[2]]


def told(plan: Plan) -> str:
    """A plan for people."""
    rules = [
        f"{'p99' if name == 'p99_s' else name} " + (f"{value * 1e3:g} ms" if name == "p99_s" else share_of(value))
        for name in Rules.__struct_fields__
        if (value := getattr(plan.rules, name)) is not None
    ]
    return (
        f"{', '.join(map(share_of, plan.steps))} of the shoppers, each for at least {plan.hold_s:g} s and "
        f"{plan.least:,} answers, as long as these are kept: {', '.join(rules) or 'no rule'}"
    )
