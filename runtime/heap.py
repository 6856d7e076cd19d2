"""``ortsep.heap``: the public name of ``ortsep.base.heap``."""

from ortsep.base.heap import give_back

__all__ = ["give_back"]
