"""Settings: what they are, where they come from, how their text is read.

Must not know: who obeys them.
"""
