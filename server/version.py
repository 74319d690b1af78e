"""The version of this release, for the command line, OpenAPI and the metrics.

Lives here: one string, which pyproject.toml repeats. Must not know: who shows it. The SMTP greeting never does, because
an attacker would learn what to try.
"""

from typing import Final

VERSION: Final = "0.2.0.dev0"
