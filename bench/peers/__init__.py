"""Servers of others that are measured next to ours."""
