"""What can be done to a model's state besides pointing an alias: going back, retiring, restoring. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ranking.aliases import PRODUCTION
from ranking.errors import NoSuchVersion, RegistryError
from ranking.registry import Change, State, present, versions_named


def known(version: str, there: Sequence[str]) -> None:
    """Raises NoSuchVersion where there is no such one."""
    if version not in there:
        raise NoSuchVersion(f"version {version} does not exist; there are {', '.join(there) or 'none'}")


def stood(history: Sequence[Change], alias: str) -> list[str]:
    """The versions that an alias stood on, oldest first, up to now: a promotion adds one, going back takes off what
    came after. So a second rollback goes one further back, and not forth to what the first one left."""
    found: list[str] = []
    for change in history:
        if change.alias != alias or change.action not in ("promote", "alias", "rollback"):
            continue
        if not found and change.before is not None:
            found.append(change.before)
        if change.action == "rollback" and change.version in found:
            while found[-1] != change.version:
                found.pop()
        elif found[-1:] != [change.version]:
            found.append(change.version)
    return found


def previous(state: State, alias: str, there: list[str]) -> str:
    """What the alias stood on before, leaving out what cannot answer any more. Raises RegistryError where there is
    none."""
    now, usable = state.aliases.get(alias), present(state, there)
    if now is None:
        raise RegistryError(f"no version is {alias}; there is nothing to go back from")
    earlier = [one for one in stood(state.history, alias)[:-1] if one != now and one in usable]
    if not earlier:
        others = ", ".join(one for one in usable if one != now) or "none"
        raise RegistryError(f"{alias} is version {now}, and the history has none before it; promote one of: {others}")
    return earlier[-1]


def back(state: State, alias: str, there: list[str], *, by: str = "", why: str = "") -> State:
    """The state with the alias on what it stood on before its last promotion; where a rollout is under way, and the
    alias is production's, without the rollout. Raises RegistryError where there is nothing to go back to."""
    now = state.aliases.get(alias)
    if state.rollout is not None and alias == PRODUCTION:
        ended = replace(state, rollout=None)
        return ended.noted("abandon", state.rollout.version, alias=alias, before=now, by=by, why=why)
    version = previous(state, alias, there)
    changed = replace(state, aliases={**state.aliases, alias: version})
    return changed.noted("rollback", version, alias=alias, before=now, by=by, why=why)


def retire(state: State, version: str, there: list[str], *, by: str = "", why: str = "") -> State:
    """The state in which the version never answers again. Raises RegistryError where an alias or the rollout stands on
    it."""
    known(version, there)
    if version in state.retired:
        raise RegistryError(f"version {version} is retired already")
    if on := [alias for alias, one in versions_named(state).items() if one == version]:
        raise RegistryError(f"version {version} is {', '.join(on)}; promote another first")
    return replace(state, retired=[*state.retired, version]).noted("retire", version, by=by, why=why)


def restore(state: State, version: str, there: list[str], *, by: str = "", why: str = "") -> State:
    """The state in which a retired version may answer again. Raises RegistryError where it is not retired."""
    known(version, there)
    if version not in state.retired:
        raise RegistryError(f"version {version} is not retired")
    kept = [one for one in state.retired if one != version]
    return replace(state, retired=kept).noted("restore", version, by=by, why=why)
