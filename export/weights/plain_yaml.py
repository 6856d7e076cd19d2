"""YAML of values only, and of no more of them than a configuration has, its aliases and merges written out.

A few lines of aliases of aliases (or of merges of merges) can spell billions of values: whoever walks through them, or
only prints them in a message, would never come back.
"""

from typing import Any

import yaml

MOST, DEEPEST = 100_000, 24
"""Values and levels."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with an end to what merges (``<<``) may gather."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST:
            raise ValueError("it merges more values than a configuration has")


def load_plain_yaml(text: str) -> Any:
    """The values of a YAML text. Raises yaml.YAMLError, ValueError, RecursionError."""
    data = yaml.load(text, Loader=_Loader)
    todo, count = [(data, 0)], 0
    while todo:
        value, depth = todo.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        count += len(inner)
        if count > MOST or depth > DEEPEST:
            raise ValueError("it spells more values than a configuration has")
        todo += [(item, depth + 1) for item in inner]
    return data
