"""YAML of values only, and of no more of them than a configuration has, its aliases and merges written out.

A few lines of aliases of aliases (or of merges of merges) can spell billions of values: whoever walks through them, or
only prints them in a message, would never come back. A number of a hundred thousand digits is as bad.
"""

from typing import Any

import yaml

MOST, DEEPEST, DIGITS = 100_000, 24, 64
"""Values, levels, and the characters of a number."""
MERGE = "tag:yaml.org,2002:merge"


class PlainLoader(yaml.SafeLoader):
    """YAML's safe loader, with an end to what merges (``<<``) may gather in a text, and to the length of numbers."""

    _merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            if key.tag == MERGE:
                for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(part, yaml.MappingNode):
                        self.flatten_mapping(part)
                        self._merged += len(part.value) + 1
                        if self._merged > MOST:
                            raise ValueError("it merges more values than a configuration has")
        super().flatten_mapping(node)

    def number(self, node: yaml.ScalarNode) -> Any:
        """An integer or a float; YAML's integers of base 60 take quadratic time."""
        if len(node.value) > DIGITS:
            raise ValueError(f"a number of {len(node.value)} characters")
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", PlainLoader.number)


def load_plain_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """The values of a YAML text. Raises yaml.YAMLError, ValueError, RecursionError."""
    try:
        data = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError):
        raise
    except Exception as error:  # of PyYAML's constructors: an empty !!int, a !!bool of another word, a day 99
        raise ValueError(str(error) or type(error).__name__) from error
    todo, count = [(data, 0)], 0
    while todo:
        value, depth = todo.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        count += len(inner)
        if count > MOST or depth > DEEPEST:
            raise ValueError("it spells more values than a configuration has")
        todo += [(item, depth + 1) for item in inner]
    return data
