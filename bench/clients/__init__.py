"""Clients that make load and check every answer. Must not know: the scenario."""
