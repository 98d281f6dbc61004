"""The public surface: every promised name is there, and the error tree is as drawn."""

import doctest
import re

import pytest

import cutaway
import cutaway.errors as errors


@pytest.mark.parametrize("name", cutaway.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    value = getattr(cutaway, name)
    assert name == "__version__" or value.__doc__


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="load_model"):
        _ = cutaway.load_modle  # pyright: ignore[reportAttributeAccessIssue]


def test_the_error_tree_is_as_drawn():
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    classes = {c.__name__: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, ValueError)}
    assert drawn == classes.keys() - {"CutawayError"}
    assert all(issubclass(c, errors.CutawayError) for c in classes.values())


def test_examples_in_docstrings_run():
    import cutaway.cli._frame as frame

    for module in (errors, frame):
        assert doctest.testmod(module).failed == 0


def test_a_missing_extra_names_its_command():
    with pytest.raises(errors.MissingExtra, match=re.escape("pip install 'cutaway[documents]'")):
        errors.need("a_library_that_is_not_there", "documents", "reading this")
