"""Where texts are found: folders, archives and dumps; what is refused, skipped and reported; bombs of every kind."""

import bz2
import contextlib
import errno
import gzip
import io
import json
import lzma
import os
import tracemalloc
import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cutaway.errors import CutawayError, DamagedFile, InputError
from cutaway.text.documents import Document
from cutaway.text.readers import Limits, Part, Skipped, find, read, read_part
from cutaway.text.readers.wikitext import Namespaces, plain_text

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress}
TIGHT = Limits(ratio=50, floor=1 << 20)


def write(path: Path, content: str | bytes = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reported(source, **options) -> tuple[list[Document], list[Skipped]]:
    skipped: list[Skipped] = []
    return list(read(source, skipped=skipped.append, **options)), skipped


@cache
def bomb_data(packing: str) -> bytes:
    return PACK[packing](b"<mediawiki>" + b"bomb\n" * (1 << 19))


def texts_of(part: Part) -> list[str]:
    return [d.text for d in read_part(part)]


class TestFolders:
    def test_sorted_recursive_and_what_is_left_out(self, tmp_path):
        root = tmp_path / "notes"
        for name in ("b.txt", "a/z.txt", "a/B.md", "c.py"):
            write(root / name, f"I am {name}.")
        write(root / ".git/config")
        write(root / ".hidden.txt")
        write(root / "empty.txt", "")
        write(root / "photo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
        write(root / "mislabelled.txt", bytes(range(256)))
        write(tmp_path / "outside/secret.txt")
        (root / "leak.txt").symlink_to(tmp_path / "outside/secret.txt")
        (root / "leak").symlink_to(tmp_path / "outside")
        (root / "again.txt").symlink_to(root / "b.txt")
        (root / "gone.txt").symlink_to(root / "nothing")
        os.mkfifo(root / "pipe.txt")
        documents, skipped = reported(root)
        assert [d.source for d in documents] == [
            f"{root}/{name}" for name in ("again.txt", "c.py", "a/B.md", "a/z.txt")
        ]
        assert {Path(s.source).name: s.reason for s in skipped} == {
            ".git": "hidden",
            ".hidden.txt": "hidden",
            "b.txt": f"the same file as {root}/again.txt",
            "empty.txt": "empty",
            "gone.txt": "a broken link",
            "leak": "a link to a folder",
            "leak.txt": "a link that leaves the folder",
            "mislabelled.txt": "is not text: it is binary data",
            "photo.png": "is not text: it is a PNG picture",
            "pipe.txt": "not a regular file",
        }

    def test_a_file_named_twice_is_read_once(self, tmp_path):
        path = write(tmp_path / "a.txt")
        documents, skipped = reported([tmp_path, path, str(path)])
        assert len(documents) == 1
        assert {s.reason for s in skipped} == {f"the same file as {path}"}

    def test_nothing_to_read(self, tmp_path):
        with pytest.raises(InputError, match="nothing to read in"):
            list(read(tmp_path))
        write(tmp_path / "a.bin", b"\0\1\2")
        with pytest.raises(InputError, match=r"no text in .*a\.bin: is not text: it is binary data"):
            list(read(tmp_path))
        with pytest.raises(InputError, match="nothing to read in an empty list"):
            list(read([]))

    def test_no_permission(self, tmp_path, monkeypatch):
        def refuse(path, *_, **__):
            raise PermissionError(errno.EACCES, "Permission denied", path)

        path = write(tmp_path / "a.txt")
        monkeypatch.setattr("cutaway.text.readers.streams.open", refuse, raising=False)
        with pytest.raises(InputError, match=r"a\.txt cannot be read: Permission denied"):
            list(read(path))

    def test_parts_in_other_processes_give_the_same(self, tmp_path):
        for name in ("a.txt", "b.jsonl", "c.csv"):
            write(tmp_path / name, '{"text": "words"}\n' * 2 if name == "b.jsonl" else "label,text\n1,some text\n")
        parts = find(tmp_path)
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            assert list(pool.map(texts_of, parts)) == [texts_of(part) for part in parts]


class TestBadPaths:
    def test_near_matches(self, tmp_path):
        write(tmp_path / "corpus/chapter-one.txt")
        with pytest.raises(
            InputError, match=r"there is no file .*chapter_one\.txt; did you mean .*/chapter-one\.txt\?"
        ):
            list(read(tmp_path / "corpus/chapter_one.txt"))
        with pytest.raises(InputError, match=r"did you mean .*/corpus\?"):
            list(read(tmp_path / "copus/chapter-one.txt"))
        with pytest.raises(InputError, match=r"corpus holds chapter-one\.txt"):
            list(read(tmp_path / "corpus/zzz"))

    def test_empty_alone_is_an_error_and_beside_others_a_report(self, tmp_path):
        empty = write(tmp_path / "a.txt", "")
        with pytest.raises(InputError, match=r"a\.txt is empty"):
            list(read(empty))
        documents, skipped = reported([empty, write(tmp_path / "b.txt")])
        assert len(documents) == 1
        assert skipped == [Skipped(str(empty), "empty")]

    def test_binary_given_by_name(self, tmp_path):
        for name, content, what in (
            ("a.txt", os.urandom(4096), "binary data"),
            ("model", b"\x7fELF\2\1\1\0" * 9, "a program"),
            ("b.csv", gzip.compress(b"a,b\n" * 99), "gzip data; let its name end in .gz"),
            ("letter.docx", zip_of({"word/document.xml": b"<w/>"}), "a zip archive"),
        ):
            with pytest.raises(InputError, match=f"is not text: it is {what}"):
                list(read(write(tmp_path / name, content)))

    def test_special_files_and_broken_links(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("nowhere")
        with pytest.raises(InputError, match="neither a file nor a folder"):
            list(read(tmp_path / "pipe"))
        with pytest.raises(InputError, match="link to nowhere, which does not exist"):
            list(read(tmp_path / "link"))


def zip_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


class TestCompression:
    @pytest.mark.parametrize("packing", PACK)
    def test_every_packing_of_every_kind(self, tmp_path, packing):
        pack = PACK[packing]
        assert [d.text for d in read(write(tmp_path / f"a.txt{packing}", pack(b"Hello.\n")))] == ["Hello.\n"]
        lines = write(tmp_path / f"b.JSONL{packing.upper()}", pack(b'{"text": "a"}\n{"text": "b"}\n'))
        assert [(d.text, d.source) for d in read(lines)] == [("a", f"{lines}:1"), ("b", f"{lines}:2")]

    @pytest.mark.parametrize("packing", PACK)
    def test_concatenated_streams(self, tmp_path, packing):
        data = PACK[packing](b"one\n") + PACK[packing](b"two\n") + (b"\0" * 8 if packing == ".xz" else b"")
        assert [d.text for d in read(write(tmp_path / f"a.txt{packing}", data))] == ["one\ntwo\n"]

    @pytest.mark.parametrize("packing", PACK)
    def test_cut_short_and_not_packed_at_all(self, tmp_path, packing):
        data = PACK[packing](os.urandom(5000).hex().encode())
        for content in (data[: len(data) // 2], b"plain text, no stream"):
            with pytest.raises(DamagedFile, match="damaged or cut short"):
                list(read(write(tmp_path / f"a.txt{packing}", content)))

    @pytest.mark.parametrize("packing", PACK)
    @pytest.mark.parametrize(
        "name", ["a.txt", "a.jsonl", "a.html", "a.csv", "a.warc", "a.xml", "a.json", "a.pdf", "a.md"]
    )
    def test_bombs(self, tmp_path, packing, name):
        bomb = write(tmp_path / (name + packing), bomb_data(packing))
        with pytest.raises((InputError, DamagedFile)) as caught:
            list(read(bomb, limits=TIGHT))
        # An error at the first line is as good as one at the limit; going on is not.
        assert "bomb" in str(caught.value) or name in ("a.warc", "a.jsonl", "a.json", "a.xml", "a.pdf")

    def test_a_window_of_gigabytes_is_refused(self, tmp_path):
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
        with pytest.raises(DamagedFile, match=r"[Mm]emory"):
            list(read(write(tmp_path / "a.txt.xz", lzma.compress(b"text", filters=filters))))

    def test_memory_does_not_grow_with_the_text(self, tmp_path):
        lines = "".join(f"{i} {i * i} words and numbers {i % 97}\n" for i in range(400_000)).encode() * 2
        path = write(tmp_path / "a.txt.gz", gzip.compress(lines, 1))
        tracemalloc.start()
        total = sum(len(d.text) for d in read(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == len(lines) > 24e6
        assert peak < 8e6


class TestZip:
    def test_members_are_read_by_their_own_names(self, tmp_path):
        members = {
            "texts/a.txt": b"A.",
            "b.jsonl.gz": gzip.compress(b'{"text": "B."}\n'),
            "p.png": b"\x89PNG\0\0\0\0",
            "inner.zip": zip_of({"x.txt": b"x"}),
            "__MACOSX/._a.txt": b"\0\0",
            "c.csv": b"text\nC.\n",
            "empty.txt": b"",
        }
        path = write(tmp_path / "all.zip", zip_of(members))
        documents, skipped = reported(path)
        assert [(d.text, d.source) for d in documents] == [
            ("A.", f"{path}/texts/a.txt"),
            ("B.", f"{path}/b.jsonl.gz:1"),
            ("C.", f"{path}/c.csv:2"),
        ]
        assert [s.source.rpartition("all.zip/")[2] for s in skipped] == [
            "p.png",
            "inner.zip",
            "__MACOSX/._a.txt",
            "empty.txt",
        ]

    def test_many_members_become_several_parts(self, tmp_path, monkeypatch):
        monkeypatch.setattr("cutaway.text.readers.discover.PART", 1000)
        path = write(tmp_path / "a.zip", zip_of({f"{i}.txt": os.urandom(40).hex().encode() for i in range(50)}))
        parts = find(path)
        assert len(parts) > 3
        assert len([d for p in parts for d in read_part(p)]) == 50

    def test_bombs(self, tmp_path):
        path = write(tmp_path / "a.zip", zip_of({"a.txt": b"0" * (8 << 20)}))
        with pytest.raises(InputError, match="bomb"):
            find(path, limits=TIGHT)
        # The directory lies: it says 1 MB where 8 MB come out.
        data = bytearray(path.read_bytes())
        place = data.rindex(b"PK\1\2") + 24
        data[place : place + 4] = (1 << 20).to_bytes(4, "little")
        path.write_bytes(data)
        with pytest.raises(InputError, match="no text in"):
            list(read(path, limits=Limits(ratio=1, floor=2 << 20)))
        # The member is modest, what it holds is not.
        nested = write(tmp_path / "b.zip", zip_of({"a.txt.gz": gzip.compress(b"0" * (8 << 20)), "b.txt": b"fine"}))
        documents, skipped = reported(nested, limits=TIGHT)
        assert documents[-1].text == "fine"
        assert sum(len(d.text) for d in documents) <= TIGHT.floor + 4
        assert "bomb" in skipped[0].reason

    def test_damage(self, tmp_path):
        data = zip_of({"a.txt": os.urandom(3000).hex().encode(), "b.txt": b"fine"})
        with pytest.raises(DamagedFile, match="not a zip archive"):
            find(write(tmp_path / "a.zip", data[:-40]))
        documents, skipped = reported(write(tmp_path / "b.zip", data[:200] + b"\0\1" + data[202:]))
        assert [d.text for d in documents] == ["fine"]
        assert "damaged or cut short" in skipped[0].reason


PAGE = """{{Infobox element|name = Helium|image = [[File:He.jpg|thumb]]}}
'''Helium''' (from {{lang|grc|ἥλιος}}) is a [[chemical element]], [[Symbol (x)|symbol]] '''He'''.<ref>{{cite}}</ref>
It boils at {{convert|-269|C|F}}<ref name="x" /> &mdash; see [https://example.org the page].<!-- [[ {{ -->

[[File:Spectrum.jpg|thumb|The [[spectrum]]]]
== History ==
It was seen on {{nowrap|18 August}} 1868.

{| class="wikitable"
| [[x]] || {{y|z}}
{| nested
|}
|}
* One
* <b>Two</b> <math>x^{2}</math>H<sub>2</sub>O

== References ==
{{Reflist}}
[[Category:Gases]]
[[de:Helium]]
"""
PLAIN = """Helium (from ἥλιος) is a chemical element, symbol He.
It boils at -269 C — see the page.

History

It was seen on 18 August 1868.

- One
- Two H2O"""


def dump(*pages: str, head: str = "") -> str:
    info = '<siteinfo><dbname>xwiki</dbname><namespaces><namespace key="6">Datei</namespace></namespaces></siteinfo>'
    root = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">'
    return f"{head}{root}{info}{''.join(pages)}</mediawiki>"


def page(title: str, text: str, ns: int = 0, extra: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    revision = f"<revision><id>7</id><text bytes='9' xml:space='preserve'>{escaped}</text></revision>"
    return f"<page><title>{title}</title><ns>{ns}</ns><id>1</id>{extra}{revision}</page>"


class TestWikipedia:
    def test_wikitext_to_prose(self):
        assert plain_text(PAGE) == PLAIN

    def test_chinese_conversion_and_local_namespaces(self):
        names = Namespaces()
        names.add("6", "文件")
        text = "[[文件:氦.jpg|thumb|图]]'''氦'''（{{lang-en|Helium}}）"
        text += "是-{zh-hans:化学元素;zh-hant:化學元素}-，符号-{He}-。（{{x}}）"
        assert plain_text(text, names) == "氦（Helium）是化学元素，符号He。"

    @pytest.mark.parametrize(
        ("wikitext", "prose"),
        [
            ("{{open and [[a|b]] go on", "open and b go on"),
            ("a <nowiki>{{not}} [[this]]</nowiki> b", "a {{not}} [[this]] b"),
            ("a <ref>b {{c}} d", "a b d"),
            ("closed }} without ]] opening", "closed }} without ]] opening"),
            ("x{{a|{{b}}|{{c|{{d}}}}}}y", "xy"),
            ("a<br />b<br>c", "a\nb\nc"),
            ("== Only ==\n=== Headings ===", ""),
        ],
    )
    def test_corner_cases(self, wikitext, prose):
        assert plain_text(wikitext) == prose

    @pytest.mark.parametrize("packing", ["", ".bz2"])
    def test_a_dump(self, tmp_path, packing):
        text = dump(
            page("Helium", PAGE),
            page("He", "#REDIRECT [[Helium]]", extra="<redirect title='Helium' />"),
            page("Talk:Helium", "Chat.", ns=1),
            page("Leer", "{{stub}}"),
            page("Bild &amp; Ton", "[[Datei:x.png]]Ein Satz."),
        )
        data = text.encode()
        path = write(tmp_path / f"dump.xml{packing}", bz2.compress(data) if packing else data)
        documents, skipped = reported(path)
        assert documents == [
            Document(PLAIN, f"{path}#Helium", {"title": "Helium", "language": "de"}),
            Document("Ein Satz.", f"{path}#Bild & Ton", {"title": "Bild & Ton", "language": "de"}),
        ]
        assert {s.reason for s in skipped} == {
            "1 redirects left out",
            "1 pages outside the article namespace left out",
            "1 articles without text left out",
        }

    @pytest.mark.parametrize(
        "doctype",
        [
            '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
            '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd">',
        ],
    )
    def test_entities_are_refused(self, tmp_path, doctype):
        with pytest.raises(InputError, match="declares XML entities"):
            list(read(write(tmp_path / "a.xml", dump(page("A", "text"), head=doctype))))

    def test_damage_and_endless_pages(self, tmp_path):
        with pytest.raises(DamagedFile, match="not well-formed"):
            list(read(write(tmp_path / "a.xml", dump(page("A", "text"))[:-40])))
        with pytest.raises(InputError, match="page of more than 16 MB"):
            list(read(write(tmp_path / "b.xml", dump(page("A", "x" * (17 << 20))))))
        with pytest.raises(InputError, match="deeper"):
            list(read(write(tmp_path / "c.xml", "<mediawiki>" + "<a>" * 1000)))

    def test_pages_arrive_one_by_one(self, tmp_path):
        path = write(tmp_path / "a.xml", dump(*(page(str(i), "Sentence. " * 1000) for i in range(2000))))
        tracemalloc.start()
        first = next(read(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert first.source.endswith("#0")
        assert path.stat().st_size > 20e6
        assert peak < 12e6

    def test_other_xml_is_kept_as_it_is(self, tmp_path):
        assert next(read(write(tmp_path / "a.xml", "<note>hi</note>"))).text == "<note>hi</note>"

    HOSTILE = (
        "{{",
        "[[",
        "<ref>",
        "<!--",
        "<math>",
        "[http://",
        "{|\n",
        "-{",
        "{{[[",
        "<a ",
        "= a =\n",
        "* ",
        "&#",
        "'",
        "( ",
        "__A",
    )

    @pytest.mark.parametrize("unit", HOSTILE)
    def test_work_is_linear_in_hostile_pages(self, unit):
        assert len(plain_text(unit * 30_000)) <= len(unit) * 30_000  # quadratic work would take minutes here


def test_reading_stops_when_nobody_asks_for_more(tmp_path):
    path = write(tmp_path / "a.txt", "A line of text.\n" * 200_000)
    assert len(list(islice(read(path), 2))) == 2


def damaged(data: bytes, random: Random) -> bytes:
    """A few bytes changed, cut out or doubled."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place, length = random.randrange(len(out)), random.randint(1, 16)
        out[place : place + length] = random.choice([random.randbytes(length), b"", out[place : place + length] * 2])
        if random.random() < 0.2:
            del out[random.randrange(len(out) + 1) :]
        out = out or bytearray(b"x")
    return bytes(out)


def samples() -> dict[str, bytes]:
    """A small file of every format that has a structure to break."""
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["one", "two"] * 50, "url": ["u"] * 100}), table)
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nText\r\n0\r\n\r\n"
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: u\r\nContent-Type: application/http\r\n"
    head += f"Content-Length: {len(http)}"
    files = {
        "a.parquet": table.getvalue(),
        "a.warc": (head.encode() + b"\r\n\r\n" + http + b"\r\n\r\n") * 3,
        "a.zip": zip_of({"a.txt": b"words " * 50, "b.csv": b"id,text\n1,words\n"}),
        "a.xml": dump(page("A", PAGE), page("B", "text")).encode(),
        "a.json": json.dumps([{"text": "words", "n": [1, {"x": None}]}] * 5).encode(),
        "a.csv": b'id,text\n1,"quoted ""text"", with comma"\n2,plain\n' * 5,
        "a.md": b"---\ntitle: x\n---\nText.",
    }
    return files | {f"a.txt{packing}": pack(b"words and lines\n" * 50) for packing, pack in PACK.items()}


@pytest.mark.parametrize("name", [pytest.param(n, id=n) for n in samples()])
@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused_with_a_sentence(tmp_path, name, rounds):
    random = Random(name)
    data = samples()[name]
    for _ in range(rounds):
        with contextlib.suppress(CutawayError):
            for document in read(write(tmp_path / name, damaged(data, random))):
                document.text.encode()
