"""Small faults, one at a time, that the tests must catch; see `python -m tests.mutants --help` and docs/mutants.md."""
