"""Where settings come from: the TOML file and the environment, as text by public name.

Must not know: which settings there are, or what they mean.
"""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

PREFIX: Final = "TEMPMAIL_"


class ConfigError(ValueError):
    """A setting is unknown, malformed or contradicts another; the text names it and says what would be right."""


_HINT: Final = "`tempmail check-config --all` lists those there are"


def _read_file(path: str, canonical: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The values by name, and the keys that name no setting, as they are written."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"configuration file {path}: {error}") from error
    values: dict[str, str] = {}
    unknown: list[str] = []
    for key, value in table.items():
        name = key.upper().removeprefix(PREFIX)
        if isinstance(value, dict):
            raise ConfigError(f"configuration file {path}: {key} is a table; settings stand at the top level")
        if name not in canonical:
            unknown.append(key)
            continue
        if name in values:
            raise ConfigError(f"configuration file {path}: {key} is given twice")
        values[name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return values, unknown


def gather(env: Mapping[str, str], file: str | None, canonical: Mapping[str, str]) -> dict[str, str]:
    """Every given value by public name: file, environment over it, aliases folded in. All unknown names are one error.

    ``canonical``: each name that may be given → the public one.
    """
    given, strangers = _read_file(file, canonical) if file else ({}, [])
    own = {k.removeprefix(PREFIX): v for k, v in env.items() if k.startswith(PREFIX) and k != PREFIX + "CONFIG"}
    complaints = []
    if strangers:
        near = [_near(key.upper().removeprefix(PREFIX), canonical).lower() for key in strangers]
        complaints.append(f"configuration file {file}: {_unknown(strangers, near)}")
    if missing := sorted(set(own) - set(canonical)):
        near = [PREFIX * bool(name) + name for name in (_near(name, canonical) for name in missing)]
        complaints.append(_unknown([PREFIX + name for name in missing], near))
    if complaints:
        raise ConfigError(f"{'; '.join(complaints)}; {_HINT}")
    return {canonical[name]: value for name, value in (given | own).items()}


def _near(name: str, canonical: Mapping[str, str]) -> str:
    """The setting that was probably meant, or ""."""
    return "".join(get_close_matches(name, canonical, n=1))


def _unknown(written: list[str], near: list[str]) -> str:
    named = [name + f" ({close} is one)" * bool(close) for name, close in zip(written, near, strict=True)]
    return f"unknown setting{'s' * (len(named) > 1)} {', '.join(named)}"


def origins_of(env: Mapping[str, str], file: str | None, canonical: Mapping[str, str]) -> dict[str, str]:
    """Where each given value comes from, by public name: ``environment``, or ``file`` and its path."""
    found = dict.fromkeys(_read_file(file, canonical)[0] if file else {}, f"file {file}")
    found |= {name.removeprefix(PREFIX): "environment" for name in env if name.startswith(PREFIX)}
    return {canonical[name]: origin for name, origin in found.items() if name in canonical}


def environment() -> dict[str, str]:
    """This process's environment, for a child that is to be configured as it is."""
    return dict(os.environ)
