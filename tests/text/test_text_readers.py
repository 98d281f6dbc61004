"""Readers: formats, encodings and the choice of columns; files are written by outsiders or by hand from a standard."""

import csv
import gzip
import io
import json
import pickle
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.text.documents import Document
from cutaway.text.readers import READERS, Skipped, find, plain, read, read_part

POEM = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n"
TRADITIONAL = "漢皇重色思傾國，御宇多年求不得。\n楊家有女初長成，養在深閨人未識。\n天生麗質難自棄，一朝選在君王側。\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def only(path: Path, **options) -> Document:
    (document,) = read(path, **options)
    return document


def reported(path: Path, **options) -> tuple[list[Document], list[Skipped]]:
    skipped: list[Skipped] = []
    return list(read(path, skipped=skipped.append, **options)), skipped


class TestPlainText:
    def test_a_text_is_one_document_with_its_path(self, tmp_path):
        path = write(tmp_path / "a.txt", "Hello.\r\nWorld.\n")
        assert only(path) == Document("Hello.\r\nWorld.\n", str(path), {})

    @given(text=st.text(st.sampled_from("ab \n\r\0é界🙂"), min_size=1, max_size=300), part=st.integers(20, 60))
    def test_pieces_and_parts_add_up_to_the_text(self, tmp_path_factory, text, part):
        text = "start\n" + text.replace("\0", ".")
        path = write(tmp_path_factory.mktemp("cut") / "a.txt", text)
        with pytest.MonkeyPatch.context() as patch:
            for name, size in {"WHOLE": 1, "PIECE": 16, "PART": part, "MB": 32}.items():
                patch.setattr(plain, name, size)
            patch.setattr(plain.blocks, "__kwdefaults__", {"size": 16})
            parts = find(path)
            assert parts[-1].stop in (None, path.stat().st_size)
            assert sum(p.size for p in parts) == path.stat().st_size
            assert "".join(d.text for p in parts for d in read_part(p)) == text

    def test_a_long_text_is_cut_at_paragraphs_and_divided_for_processes(self, tmp_path):
        text = "".join(f"Paragraph {i} says something.\nIt has two lines.\n\n" for i in range(800_000))
        path = write(tmp_path / "long.txt", text)
        parts = find(path)
        assert len(parts) == -(-len(text) // plain.PART) > 2
        assert pickle.loads(pickle.dumps(parts)) == parts  # noqa: S301  # as multiprocessing sends them
        documents = [d for part in reversed(parts) for d in read_part(part)]
        documents.sort(key=lambda d: int(d.source.rpartition("@")[2]))
        assert "".join(d.text for d in documents) == text
        assert len({d.source for d in documents}) == len(documents)
        assert all(d.text.endswith("\n\n") and len(d.text) <= plain.PIECE * 2 for d in documents)

    def test_without_lines_or_spaces_no_character_is_cut(self, tmp_path):
        text = "界" * 900_000
        documents, skipped = reported(write(tmp_path / "a.txt", text))
        assert len(documents) > 1
        assert "".join(d.text for d in documents) == text
        assert not skipped

    def test_unknown_suffixes_are_read_by_their_content(self, tmp_path):
        assert only(write(tmp_path / "README", "Read me.")).text == "Read me."
        page = only(write(tmp_path / "page", "<!DOCTYPE html><html><body><p>Only this counts.</p></body></html>"))
        assert page.text == "Only this counts."


class TestEncodings:
    @pytest.mark.parametrize(
        ("encoding", "text"),
        [
            ("utf-8-sig", POEM),
            ("utf-16", POEM),
            ("utf-16-le", "Plain English without a mark.\n"),
            ("utf-32", POEM),
            ("gb18030", POEM * 3),
            ("gb18030", "㐀𠀀 extends GBK: " + POEM * 3),
            ("big5", TRADITIONAL),
            ("cp932", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"),
            ("euc_kr", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n"),
            ("cp1251", "Все люди рождаются свободными и равными в своем достоинстве и правах.\n"),
            ("cp1252", "Le cœur a ses raisons que la raison ne connaît point : « déjà vu », l’été.\n"),
        ],
    )
    def test_round_trip(self, tmp_path, encoding, text):
        document = only(write(tmp_path / "a.txt", text.encode(encoding)))
        assert document.text == text

    @pytest.mark.parametrize(("encoding", "text"), [("gb18030", POEM), ("big5", TRADITIONAL)])
    def test_chinese_that_begins_far_behind_english(self, tmp_path, encoding, text):
        text = "An English line.\n" * 90_000 + text * 5
        documents = list(read(write(tmp_path / "a.txt", text.encode(encoding))))
        assert "".join(d.text for d in documents) == text
        assert documents[-1].meta["encoding"].startswith(encoding)

    def test_long_chinese_in_gb18030_is_divided_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr(plain, "PART", 1 << 20)
        text = (POEM + "\n") * 60_000
        path = write(tmp_path / "a.txt", text.encode("gb18030"))
        parts = find(path)
        assert len(parts) == 3
        assert "".join(d.text for p in parts for d in read_part(p)) == text

    def test_mostly_utf8_is_read_with_replacement_and_reported(self, tmp_path):
        documents, skipped = reported(write(tmp_path / "a.txt", (POEM * 5).encode() + b"\xff\xfe broken \xe5\x8a"))
        assert documents[0].text == POEM * 5 + "\ufffd\ufffd broken \ufffd"
        assert skipped == [Skipped(documents[0].source, "3 places are not valid UTF-8 and became �", read=True)]

    def test_genuine_replacement_characters_are_not_reported(self, tmp_path):
        assert not reported(write(tmp_path / "a.txt", "was � already"))[1]


class TestMarkdown:
    def test_front_matter_moves_into_meta(self, tmp_path):
        path = write(tmp_path / "a.md", '---\ntitle: "A: day"\nlang: en\ntags: [x]\n---\n\n# Head\n\nText *stays*.\n')
        assert only(path) == Document("# Head\n\nText *stays*.\n", str(path), {"title": "A: day", "language": "en"})

    def test_toml_front_matter(self, tmp_path):
        assert only(write(tmp_path / "a.md", '+++\ntitle = "T"\n+++\nText.')).meta == {"title": "T"}

    @pytest.mark.parametrize(
        "text", ["---\nA line, then text.\n---\nMore.\n", "---\nno end\n", "+++\nnot = = toml\n+++\n"]
    )
    def test_a_horizontal_line_is_no_front_matter(self, tmp_path, text):
        assert only(write(tmp_path / "a.md", text)).text == text


class TestHtml:
    PAGE = (
        "<html lang=de><head><title>Caf&eacute;s  of\n Wien</title></head><body>"
        "<nav><a href=/>Home</a><a href=/x>Shop</a></nav><article><h1>Cafés</h1>"
        + "".join(f"<p>Paragraph {i} is about the coffee houses of the city.</p>" for i in range(9))
        + "</article><footer>Copyright, imprint, cookies</footer></body></html>"
    )

    def test_the_main_text_and_what_the_page_says_of_itself(self, tmp_path):
        document = only(write(tmp_path / "a.html", self.PAGE))
        assert "Paragraph 8 is about" in document.text
        assert "Home" not in document.text
        assert "cookies" not in document.text
        assert document.meta == {"title": "Cafés of Wien", "language": "de"}

    def test_the_encoding_that_the_page_names(self, tmp_path):
        page = self.PAGE.replace("<head>", "<head><meta charset=gb2312>").replace("the city", "北京").encode("gb18030")
        assert "coffee houses of 北京" in only(write(tmp_path / "a.htm", page)).text

    def test_a_page_without_text_is_reported(self, tmp_path):
        write(tmp_path / "b.txt", "b")
        write(tmp_path / "a.html", "<html><body><script>var x = 1</script></body></html>")
        documents, skipped = reported(tmp_path)
        assert [d.text for d in documents] == ["b"]
        assert [s.reason for s in skipped] == ["the page has no text"]


def pdf(*pages: str) -> bytes:
    """A PDF by hand (ISO 32000-1, 7.5): one line of text per page."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {count} >>"]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for i, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    tail = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer << /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return out + tail.encode() + f"startxref\n{len(out)}\n%%EOF\n".encode()


class TestPdf:
    def test_pages_in_order(self, tmp_path):
        assert only(write(tmp_path / "a.pdf", pdf("First page.", "Second page."))).text == "First page.\n\nSecond page."

    def test_known_by_its_first_bytes(self, tmp_path):
        assert only(write(tmp_path / "paper", pdf("Words."))).text == "Words."

    def test_pictures_only(self, tmp_path):
        with pytest.raises(InputError, match=r"no text layer.*OCR"):
            list(read(write(tmp_path / "scan.pdf", pdf("", ""))))

    def test_damaged(self, tmp_path):
        with pytest.raises(DamagedFile, match=r"broken\.pdf is not a PDF"):
            list(read(write(tmp_path / "broken.pdf", b"%PDF-1.4\n" + bytes(range(256)))))


class TestTables:
    def table(self, path: Path, rows, dialect="excel", **options) -> Path:
        out = io.StringIO()
        csv.writer(out, dialect, **options).writerows(rows)
        return write(path, out.getvalue())

    def test_usual_names_first(self, tmp_path):
        rows = [
            ["id", "Title", "Body"],
            [1, "A long title for the row", "Short"],
            [2, "B", 'With "quotes",\nand a line'],
        ]
        documents = list(read(self.table(tmp_path / "a.csv", rows)))
        assert [d.text for d in documents] == ["Short", 'With "quotes",\nand a line']
        assert [d.source.rpartition(":")[2] for d in documents] == ["2", "4"]
        assert documents[0].meta == {"title": "A long title for the row"}

    def test_else_the_longest_texts(self, tmp_path):
        rows = [["stars", "opinion", "who"], *([i % 5, f"Opinion number {i} of many", f"user{i}"] for i in range(9))]
        assert next(read(self.table(tmp_path / "a.csv", rows))).text == "Opinion number 0 of many"

    def test_the_column_asked_for(self, tmp_path):
        path = self.table(tmp_path / "a.csv", [["text", "reply"], ["a", "b"], ["", ""], ["c", ""]])
        documents, skipped = reported(path, column="reply")
        assert [d.text for d in documents] == ["b"]
        assert [s.reason for s in skipped] == ["2 rows have nothing in the column 'reply'"]
        with pytest.raises(ConfigError, match=r"unknown column in .*'replies'; did you mean reply"):
            list(read(path, column="replies"))

    @pytest.mark.parametrize("delimiter", list(",;\t|"))
    def test_delimiters(self, tmp_path, delimiter):
        rows = [["label", "text"], *([i, f"1,5; and | that, {i}; two"] for i in range(20))]
        path = self.table(tmp_path / "a.csv", rows, delimiter=delimiter)
        assert [d.text for d in read(path)] == [row[1] for row in rows[1:]]

    def test_tab_separated_text_with_quotes_of_its_own(self, tmp_path):
        rows = [["1", '"Never", he said'], ["0", 'an "odd quote'], ["1", '"Start only'], ["0", "plain and longer text"]]
        path = write(tmp_path / "a.tsv", "".join("\t".join(row) + "\n" for row in rows))
        assert [d.text for d in read(path)] == [row[1] for row in rows]

    def test_no_header(self, tmp_path):
        path = write(tmp_path / "a.tsv", "ham\tGo until Jurong point.\nspam\tFree entry in a weekly competition!\n")
        assert [d.text for d in read(path)] == ["Go until Jurong point.", "Free entry in a weekly competition!"]
        assert [d.text for d in read(path, column="1")] == ["ham", "spam"]

    def test_a_header_of_unknown_names(self, tmp_path):
        path = write(tmp_path / "a.tsv", "en\tzh\nI have to go to sleep.\t我该去睡觉了。\nHello there, friend.\t你好\n")
        assert [d.text for d in read(path)] == ["I have to go to sleep.", "Hello there, friend."]

    def test_one_column_with_commas(self, tmp_path):
        path = write(tmp_path / "a.csv", "text\nOne, two, three\nNo comma\nYes, comma\n")
        assert [d.text for d in read(path)] == ["One, two, three", "No comma", "Yes, comma"]

    def test_a_field_beyond_the_csv_modules_default(self, tmp_path):
        text = "long " * 60_000
        assert only(self.table(tmp_path / "a.csv", [["id", "text"], [1, text]])).text == text

    def test_chinese_in_big5(self, tmp_path):
        lines = TRADITIONAL.splitlines()
        path = write(tmp_path / "a.csv", "".join(f"{i},{line}\n" for i, line in enumerate(lines)).encode("big5"))
        assert [d.text for d in read(path)] == lines

    @given(
        texts=st.lists(st.text(st.sampled_from('ab ,;"\n\té界'), min_size=1).filter(str.strip), min_size=1, max_size=8),
    )
    def test_what_the_csv_module_writes_comes_back(self, tmp_path_factory, texts):
        path = tmp_path_factory.mktemp("csv") / "a.csv"
        out = io.StringIO()
        csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *([i, t] for i, t in enumerate(texts))])
        assert [d.text for d in read(write(path, out.getvalue()))] == texts


class TestJson:
    def test_lines_with_a_field(self, tmp_path):
        records = [
            {"id": 1, "content": "Erste.", "lang": "de", "url": None},
            {"id": 2, "content": "Second.", "title": "T"},
        ]
        path = write(tmp_path / "a.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        assert list(read(path)) == [
            Document("Erste.", f"{path}:1", {"language": "de"}),
            Document("Second.", f"{path}:2", {"title": "T"}),
        ]

    def test_lines_that_are_strings(self, tmp_path):
        assert [d.text for d in read(write(tmp_path / "a.ndjson", '"one"\n\n"two\\u2028"'))] == ["one", "two\u2028"]

    def test_broken_lines_are_counted(self, tmp_path):
        lines = ['{"text": "a"}', "{oops", '{"text": ""}', '{"text": 5}', "[" * 100_000, '{"text": "b"}']
        documents, skipped = reported(write(tmp_path / "a.jsonl", "\n".join(lines)))
        assert [d.source.rpartition(":")[2] for d in documents] == ["1", "6"]
        assert {s.reason for s in skipped} == {
            "2 lines are not JSON, the first is line 2",
            "2 records have no text in 'text'",
        }
        assert all(s.read for s in skipped)

    def test_no_json_at_all(self, tmp_path):
        with pytest.raises(DamagedFile, match="is it JSON Lines"):
            list(read(write(tmp_path / "a.jsonl", "prose\nmore prose\n")))

    def test_surrogates_that_utf8_cannot_hold(self, tmp_path):
        path = write(tmp_path / "a.jsonl", r'{"text": "\ud83d\ude42 \ud83d half"}')
        assert only(path).text == "🙂 \ufffd half"

    def test_a_long_file_is_divided_and_all_parts_take_the_same_field(self, tmp_path, monkeypatch):
        monkeypatch.setattr(plain, "PART", 1 << 20)
        first = [{"a": "x" * 50, "b": "y"} for _ in range(5000)]
        later = [{"a": f"{i}", "b": "y" * 300} for i in range(10_000)]
        path = write(tmp_path / "a.jsonl", "".join(json.dumps(r) + "\n" for r in first + later))
        parts = find(path)
        assert len(parts) > 2
        documents = [d for p in parts for d in read_part(p)]
        assert [d.text for d in documents] == [r["a"] for r in first + later]
        assert len({d.source for d in documents}) == len(documents)
        assert [d.text for p in parts for d in read_part(p, column="b")][-1] == "y" * 300

    def test_an_array_longer_than_its_buffer(self, tmp_path):
        records = [{"text": f"{i}: " + '],[{"\\' * 30_000, "n": [1.5, None, {"x": []}]} for i in range(40)]
        documents = list(read(write(tmp_path / "a.json", json.dumps(records, indent=1))))
        assert [d.text for d in documents] == [r["text"] for r in records]
        assert documents[1].source.endswith("a.json:2")

    @pytest.mark.parametrize(
        ("content", "texts"),
        [
            ('["a", "b"]', ["a", "b"]),
            ('{"title": "T", "text": "one page"}', ["one page"]),
            ('{"version": "1", "data": [{"text": "a"}, {"text": "b"}]}', ["a", "b"]),
            ('{"text": "lines"}\n{"text": "under a plain name"}\n', ["lines", "under a plain name"]),
        ],
    )
    def test_other_shapes(self, tmp_path, content, texts):
        assert [d.text for d in read(write(tmp_path / "a.json", content))] == texts

    @pytest.mark.parametrize("content", ['[{"text": "a"}, {"te', "[1, oops]", '{"a": ', "[" * 100_000])
    def test_damage(self, tmp_path, content):
        with pytest.raises(DamagedFile, match="not valid JSON"):
            list(read(write(tmp_path / "a.json", content)))

    def test_json_without_texts(self, tmp_path):
        with pytest.raises(InputError, match="no column of text; its columns: a, b"):
            list(read(write(tmp_path / "a.json", '{"a": 1, "b": {"c": "d"}}')))


class TestParquet:
    def test_row_groups_are_parts(self, tmp_path, monkeypatch):
        monkeypatch.setattr("cutaway.text.readers.parquet.PART", 3000)
        texts = [f"Row {i} " + "x" * (i % 50) for i in range(1000)]
        table = pa.table(
            {"label": ["a"] * 1000, "content": texts, "n": range(1000), "url": [f"u{i}" for i in range(1000)]}
        )
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=90)
        parts = find(tmp_path / "a.parquet")
        assert len(parts) > 3
        documents = [d for p in parts for d in read_part(p)]
        assert [d.text for d in documents] == texts
        assert (documents[999].source, documents[999].meta) == (f"{tmp_path}/a.parquet:1000", {"url": "u999"})

    def test_dictionaries_nulls_and_the_column_asked_for(self, tmp_path):
        column = pa.array(["one", None, "two", " "]).dictionary_encode()
        pq.write_table(pa.table({"label": ["long label"] * 4, "w": column}), tmp_path / "a.parquet")
        documents, skipped = reported(tmp_path / "a.parquet", column="w")
        assert [d.text for d in documents] == ["one", "two"]
        assert skipped[0].reason == "2 rows have no text in 'w'"

    def test_a_bomb_of_one_text_many_times(self, tmp_path):
        once = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["boom " * 40_000]))
        pq.write_table(pa.table({"text": once}), tmp_path / "a.parquet")
        assert (tmp_path / "a.parquet").stat().st_size < 50_000
        documents, taken = read(tmp_path / "a.parquet"), 0
        with pytest.raises(InputError, match="bomb"):  # noqa: PT012  # what comes before the error counts
            for document in documents:
                taken += len(document.text)
        assert taken <= 64 << 20

    def test_errors(self, tmp_path):
        pq.write_table(pa.table({"n": [1], "text": ["t"]}), tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match="did you mean text"):
            list(read(tmp_path / "a.parquet", column="texts"))
        with pytest.raises(InputError, match=r"'n' .* is int64, not text"):
            list(read(tmp_path / "a.parquet", column="n"))
        data = (tmp_path / "a.parquet").read_bytes()
        with pytest.raises(DamagedFile, match="Parquet"):
            list(read(write(tmp_path / "b.parquet", data[:-20])))


def record(kind: str, url: str, body: bytes, media: str = "application/http; msgtype=response", **more: str) -> bytes:
    """A record of a web archive (ISO 28500:2017)."""
    headers = {
        "WARC-Type": kind,
        "WARC-Target-URI": url,
        "Content-Type": media,
        **more,
        "Content-Length": str(len(body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"WARC/1.0\r\n" + lines.encode() + b"\r\n" + body + b"\r\n\r\n"


def response(body: bytes, media: str = "text/html", status: str = "200 OK", **more: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in {"Content-Type": media, **more}.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


class TestWebArchives:
    PAGE = TestHtml.PAGE.encode()

    def archive(self) -> list[bytes]:
        gbk = TestHtml.PAGE.replace("the city", "北京").encode("gb18030")
        chunked = (
            b"".join(f"{len(c):x}\r\n".encode() + c + b"\r\n" for c in (self.PAGE[:50], self.PAGE[50:])) + b"0\r\n\r\n"
        )
        deflated = zlib.compressobj(wbits=-15)
        raw = deflated.compress(self.PAGE) + deflated.flush()
        return [
            record("warcinfo", "", b"software: none\r\n", "application/warc-fields"),
            record("request", "https://a/", b"GET / HTTP/1.1\r\n\r\n"),
            record("response", "https://a/", response(self.PAGE)),
            record("response", "https://gone/", response(self.PAGE, status="404 Not Found")),
            record("response", "https://picture/", response(b"\x89PNG", "image/png")),
            record("response", "https://gbk/", response(gbk, "text/html; charset=GBK")),
            record("response", "https://chunked/", response(chunked, Transfer_Encoding="chunked")),
            record("response", "https://gzip/", response(gzip.compress(self.PAGE), Content_Encoding="gzip")),
            record("response", "https://deflate/", response(raw, Content_Encoding="deflate")),
            record("response", "https://br/", response(b"\x0b", Content_Encoding="br")),
            record("response", "https://text/", response("Nur Text, schön.".encode(), "text/plain")),
            record(
                "conversion",
                "https://wet/",
                b"Extracted.",
                "text/plain",
                **{"WARC-Identified-Content-Language": "eng,deu"},
            ),
        ]

    @pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
    def test_pages_and_texts_with_their_addresses(self, tmp_path, name):
        records = self.archive()
        data = b"".join(map(gzip.compress, records)) if name.endswith(".gz") else b"".join(records)
        documents, skipped = reported(write(tmp_path / name, data))
        by_url = {d.meta["url"]: d for d in documents}
        pages = ["a", "gbk", "chunked", "gzip", "deflate"]
        assert list(by_url) == [f"https://{host}/" for host in [*pages, "text", "wet"]]
        assert all("Paragraph 8 is about" in by_url[f"https://{page}/"].text for page in pages)
        assert "houses of 北京" in by_url["https://gbk/"].text
        assert by_url["https://a/"].source == f"{tmp_path / name}#https://a/"
        assert by_url["https://a/"].meta["title"] == "Cafés of Wien"
        assert by_url["https://wet/"].meta["language"] == "eng"
        assert skipped == [Skipped(f"{tmp_path / name}#https://br/", "cannot be read (packed as br)")]

    def test_a_bomb_inside_a_response(self, tmp_path):
        body = gzip.compress(b"<p>" + b"a" * (80 << 20))
        data = record("response", "https://bomb/", response(body, Content_Encoding="gzip"))
        data += record("response", "https://a/", response(self.PAGE))
        documents, skipped = reported(write(tmp_path / "a.warc", data))
        assert len(documents) == 1
        assert "unpacks to more" in skipped[0].reason

    @pytest.mark.parametrize("cut", [30, -100])
    def test_cut_short(self, tmp_path, cut):
        data = record("response", "https://a/", response(self.PAGE))
        with pytest.raises(DamagedFile):
            list(read(write(tmp_path / "a.warc", data[:cut])))

    def test_a_length_that_is_no_number(self, tmp_path):
        data = record("response", "https://a/", b"x", **{"Content-Length": "-1"})
        with pytest.raises(DamagedFile, match="bytes where a record"):
            list(read(write(tmp_path / "a.warc", data + b"junk" * 10)))


def test_code_is_verbatim_and_says_so(tmp_path):
    source = "def f():\r\n\treturn '\u00a0'\n\n\n\n"
    assert only(write(tmp_path / "a.py", source)) == Document(source, str(tmp_path / "a.py"), {"kind": "code"})


def test_python_reads_its_own_library():
    parts = find("python:")
    documents = [d for p in parts for d in read_part(p)]
    names = {d.source for d in documents}
    assert {"python:json/decoder.py", "python:argparse.py", "python:topics#assert"} <= names
    assert len(names) == len(documents)
    assert not any("/test/" in name or "site-packages" in name or "idlelib" in name for name in names)
    assert 4e6 < sum(len(d.text) for d in documents) < 20e6
    assert abs(sum(p.size for p in parts) - sum(len(d.text) for d in documents)) < 1e6


def test_every_reader_has_a_lower_case_suffix():
    assert all(suffix == suffix.lower() and (suffix.startswith(".") or suffix == "python:") for suffix in READERS)
