"""Tables that are given as text."""

import pytest

from cutaway.errors import DamagedFile, InputError
from cutaway.text.readers.base import Skipped
from cutaway.text.rows import rows_of_text

WANTED = [{"text": "fine, too", "label": "good"}, {"text": "差", "label": "bad"}]


@pytest.mark.parametrize(
    "text",
    [
        'text,label\n"fine, too",good\n差,bad\n',
        "\ufefftext\tlabel\r\nfine, too\tgood\r\n差\tbad",
        '[{"text": "fine, too", "label": "good"}, {"text": "差", "label": "bad"}]',
        '\n{"text": "fine, too", "label": "good"}\n{"text": "差", "label": "bad"}\n',
    ],
)
def test_the_kind_of_table_is_seen(text: str):
    rows = list(rows_of_text(text, name="pasted"))
    assert [row.values for row in rows] == WANTED
    assert all(row.source.startswith("pasted:") for row in rows)


def test_what_is_no_row_is_told():
    said: list[Skipped] = []
    assert len(list(rows_of_text("text,label\na,b\nc,d,e\n", skipped=said.append))) == 1
    assert (said[0].source, said[0].reason) == ("rows:3", "more fields than the table has columns (3, not 2)")
    for text in ("", " \n\t"):
        with pytest.raises(InputError, match="there is nothing in rows"):
            list(rows_of_text(text))
    with pytest.raises(InputError, match="has a header"):
        list(rows_of_text("text,label\n"))
    with pytest.raises(DamagedFile, match="is not JSON"):
        list(rows_of_text("[1,"))
    with pytest.raises(InputError, match="two columns 'text'"):
        list(rows_of_text("text,text\na,b\n", asked=["text"]))


def test_half_characters_do_not_stop_it():
    assert [row.values for row in rows_of_text("text,label\na\ud800,b\n")] == [{"text": "a�", "label": "b"}]
