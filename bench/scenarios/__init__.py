"""The scenarios of the benchmark, one module each, and the worlds that they measure in."""
