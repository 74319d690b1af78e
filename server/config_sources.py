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


def _read_file(path: str, canonical: Mapping[str, str]) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"configuration file {path}: {error}") from error
    values: dict[str, str] = {}
    for key, value in table.items():
        name = key.upper().removeprefix(PREFIX)
        if isinstance(value, dict):
            raise ConfigError(f"configuration file {path}: {key} is a table; settings stand at the top level")
        if name not in canonical:
            close = get_close_matches(name, canonical, n=1)
            near = f"; {close[0].lower()} is one" if close else ""
            hint = "`tempmail check-config --all` lists those there are"
            raise ConfigError(f"configuration file {path}: unknown setting {key}{near}; {hint}")
        if name in values:
            raise ConfigError(f"configuration file {path}: {key} is given twice")
        values[name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return values


def gather(env: Mapping[str, str], file: str | None, canonical: Mapping[str, str]) -> dict[str, str]:
    """Every given value by public name: file, environment over it, aliases folded in; unknown names are errors.

    ``canonical``: each name that may be given → the public one.
    """
    given = _read_file(file, canonical) if file else {}
    given |= {k.removeprefix(PREFIX): v for k, v in env.items() if k.startswith(PREFIX) and k != PREFIX + "CONFIG"}
    unknown = sorted(set(given) - set(canonical))
    if unknown:
        near = "".join(f"; {PREFIX}{name} is one" for name in get_close_matches(unknown[0], canonical, n=1))
        raise ConfigError(
            f"unknown setting {PREFIX}{unknown[0]}{near}; `tempmail check-config --all` lists those there are"
        )
    return {canonical[name]: value for name, value in given.items()}


def origins_of(env: Mapping[str, str], file: str | None, canonical: Mapping[str, str]) -> dict[str, str]:
    """Where each given value comes from, by public name: ``environment``, or ``file`` and its path."""
    found = dict.fromkeys(_read_file(file, canonical) if file else {}, f"file {file}")
    found |= {name.removeprefix(PREFIX): "environment" for name in env if name.startswith(PREFIX)}
    return {canonical[name]: origin for name, origin in found.items() if name in canonical}


def environment() -> dict[str, str]:
    """This process's environment, for a child that is to be configured as it is."""
    return dict(os.environ)
