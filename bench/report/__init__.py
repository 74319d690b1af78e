"""Results: tables, JSON files, the page and its plots. Must not know: how a figure was measured."""
