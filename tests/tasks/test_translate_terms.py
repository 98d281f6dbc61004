"""Lists of terms: read with their lines, found as whole words."""

from pathlib import Path

import pytest

from cutaway.errors import InputError
from cutaway.tasks.translate.terms import read_terms, wanted


def test_terms_are_found_as_words_the_longest_first():
    terms = {"hard hat": "Schutzhelm", "hat": "Hut", "U.S.": "USA", "café": "Kaffeehaus"}
    assert wanted("A hard hat and a Hat at the café.", terms) == ["Schutzhelm", "Hut", "Kaffeehaus"]
    assert wanted("what a hatter", terms) == []
    assert wanted("in the U.S.", terms) == ["USA"]
    assert wanted("hat hat", terms) == ["Hut"]
    assert wanted("a hard\u00a0 hat", terms) == ["Schutzhelm"]
    assert wanted("May he? He may in may. MAY", {"May": "Mai", "may": "darf"}) == ["Mai", "darf"]
    assert wanted("the İstanbul office", {"İstanbul": "Istanbul", "office": "Büro"}) == ["Istanbul", "Büro"]
    assert wanted("这是安全帽吗", {"安全帽": "hard hat"}) == ["hard hat"]


def test_a_file_of_terms(tmp_path: Path):
    path = tmp_path / "terms.tsv"
    path.write_text("# English\tGerman\nhard hat\tSchutzhelm\r\n\nhat\tHut\nhat\tHut\n", "utf-8")
    assert read_terms(path) == {"hard hat": "Schutzhelm", "hat": "Hut"}
    path.write_text('"hat\t' + "H" * 200_000 + "\n", "utf-8")
    assert read_terms(path) == {'"hat': "H" * 200_000}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hat\tHut\ncoat\n", "terms.tsv:2 must have two terms with a tab between them, but has 1"),
        ("hat\tHut\tMütze\n", "terms.tsv:1 must have two terms"),
        ("hat\tHut\nhat\tMütze\n", "terms.tsv:2 calls 'hat' 'Mütze', but 'Hut' before"),
        ("# nothing\n", "holds no terms"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path: Path, text: str, said: str):
    path = tmp_path / "terms.tsv"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        read_terms(path)
    with pytest.raises(InputError, match="does not exist"):
        read_terms(tmp_path / "none.tsv")
