"""Trees that fit: which paths are right how often, what a step costs, and the tree that pays.

`run.tune` measures; `store` keeps what was found and finds it again when heads are loaded.
"""
