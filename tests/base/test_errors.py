"""An error is one line, whatever the names in it hold, and still the builtin that Python's users expect."""

import pytest

from ortsep.base.errors import FileMissing, MissingDependency, OrtsepError, UsageError


@pytest.mark.parametrize("kind", [OrtsepError, FileMissing, UsageError, MissingDependency])
def test_controls_in_names_are_escaped(kind: type[OrtsepError]) -> None:
    error = kind("no stem 'a\n\x1b[2J\x9b\u2028b\udcff\u00e9\u200d' here")
    assert str(error) == r"no stem 'a\n\x1b[2J\x9b\u2028b" + "\udcff\u00e9\u200d' here"
    assert error.args[0].count("\n") == 1


def test_the_builtin_stays() -> None:
    with pytest.raises(FileNotFoundError, match="no such song"):
        raise FileMissing("no such song")
