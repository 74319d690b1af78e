"""The command line: one module for each group of commands.

Lives here: what an operator types and reads. Must not know: how anything below it works.
"""
