"""A look: its page holds everything and asks for nothing; its terminal pictures keep to their width; its command."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from cutaway import save_model
from cutaway.cli import main
from cutaway.errors import InputError
from cutaway.interp import Look, attention, ledger, logit_lens, look, surprisal
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer

TEXT = "the cat sat"
CHINESE = "你好吗\n<b>"


class Page(HTMLParser):
    """Its elements, and the text inside those that hold some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        self.inside[self.open] = self.inside.get(self.open, "") + data

    @property
    def data(self) -> dict:
        """What the page draws, by picture."""
        return dict(json.loads(self.inside["data"])["parts"])


def printed(result: object, width: int, *, colour: bool) -> str:
    system = "truecolor" if colour else None
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=system, force_terminal=colour, legacy_windows=False)
    console.print(result)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.fixture
def seen(model: Model) -> Look:
    return look(model, TEXT)


def test_the_page_asks_for_nothing_and_allows_only_its_own_script(seen: Look):
    page = Page(seen.to_html())
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        held = base64.b64encode(hashlib.sha256(page.inside[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{held}'" in policy
    assert not [a for _, a in page.elements if a.keys() & {"src", "href", "action", "style", "onclick"}]
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", seen.to_html())


def test_no_text_leaves_its_place_in_the_page(model: Model):
    attack = "<b>的" + CHINESE
    model.tokenizer.encode(attack)
    page = look(model, CHINESE).to_html()
    read = Page(page)
    assert read.data["look"]["text"] == CHINESE
    assert [tag for tag, _ in read.elements if tag in ("b", "script")] == ["script", "script"]
    assert "<title>你好吗 &lt;b&gt; · Cutaway</title>" in page


def test_the_page_holds_the_numbers(seen: Look):
    data = Page(seen.to_html()).data
    assert data["receipt"]["difference"] == 0.0
    assert seen.surprisal
    assert data["scores"]["scores"] == seen.surprisal.scores
    assert data["lens"]["cells"][-1][-1]["top"][0] == list(seen.lens.cells[-1][-1].top[0])  # pyright: ignore
    levels = [data["ledger"]] + [term["opened"] for term in data["ledger"]["terms"] if "opened" in term]
    assert len(levels) == 1 + 3 * (4 + 1)
    for level in levels:
        assert sum(term["value"] for term in level["terms"]) == pytest.approx(level["total"], abs=1e-4)
    held, T = data["attention"], len(TEXT)
    steps = np.frombuffer(base64.b64decode(held["steps"]), "<u2").reshape(3, 4, T * (T + 1) // 2)
    rows, columns = np.tril_indices(T)
    assert seen.attention
    exact = seen.attention.patterns.numpy()[:, :, rows, columns]
    assert np.abs(steps / 65535 - exact).max() <= 0.5 / 65535 + 1e-7
    assert held["first"] == 0


def test_a_long_text_keeps_the_last_tokens_of_attention(model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cutaway.interp.pictures.page.ATTENTION_BYTES", 2 * 12 * 40)
    held = attention(model, TEXT).page_data()
    kept = len(TEXT) - held["first"]
    assert 0 < kept < len(TEXT)
    numbers = len(base64.b64decode(held["steps"])) // 2
    assert numbers == 12 * kept * (kept + 1) // 2 <= 12 * 40
    assert np.frombuffer(base64.b64decode(held["steps"]), "<u2")[0] <= 65535


def test_every_result_is_a_page_of_its_own(model: Model):
    results = {f.__name__: f(model, TEXT) for f in (surprisal, attention, logit_lens, ledger)}
    pictures = {name: set(Page(result.to_html()).data) for name, result in results.items()}
    assert pictures == {
        "surprisal": {"scores"},
        "attention": {"attention"},
        "logit_lens": {"lens"},
        "ledger": {"ledger"},
    }


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [50, 80, 133])
@pytest.mark.parametrize("text", [TEXT, CHINESE, "t", (TEXT + CHINESE) * 3])
def test_the_terminal_pictures_keep_to_their_width(model: Model, text: str, width: int, colour: bool):
    shown = printed(look(model, text), width, colour=colour)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    for part in ("Surprisal", "Attention", "Logit lens", "Ledger", "error", "layer 2"):
        assert part in shown


def test_the_terminal_shows_the_numbers(seen: Look):
    shown = printed(seen, 100, colour=False)
    assert f"error {seen.ledger.error:.1e}".replace("-", "−") in shown
    term = seen.ledger.top(1)[0]
    assert f"{term.value:+.3f}".replace("-", "−") in shown
    assert seen.surprisal
    assert f"{seen.surprisal.scores[3]:.1f}" in shown
    assert "recorded run – plain run: 0 " in shown
    for result in seen.parts.values():
        assert printed(result, 100, colour=True).strip() in printed(seen, 100, colour=True)


def test_everything_is_plain_data_too(seen: Look, model: Model):
    data = json.loads(json.dumps(seen.to_json(), allow_nan=False))
    assert data["parts"]["ledger"]["total"] == seen.ledger.total
    assert np.asarray(data["parts"]["attention"]["patterns"]).shape == (3, 4, len(TEXT), len(TEXT))
    assert json.loads(json.dumps(look(model, "t").to_json(), allow_nan=False))["parts"]["surprisal"]["mean"] is None


def test_choices_are_followed(model: Model):
    seen = look(model, TEXT, token="c", minus="t", position=3, layer=2, head=1)
    assert seen.attention
    assert seen.attention.shown == (2, 1)
    assert seen.position == 3
    opened = ledger(model, TEXT, token="c", minus="t", position=3)
    assert (opened.what, opened.terms) == (seen.ledger.what, seen.ledger.terms)
    layer, _ = look(model, TEXT, layer=0).attention.shown  # pyright: ignore
    assert layer == 0
    wrong: list[dict[str, Any]] = [{"layer": 3}, {"head": -1}]
    for options in wrong:
        with pytest.raises(InputError, match="is not there"):
            look(model, TEXT, **options)


def test_a_recurrent_model_has_its_own_look(recurrent: Model):
    seen = look(recurrent, TEXT)
    assert (seen.attention, seen.lens) == (None, None)
    data = Page(seen.to_html()).data
    assert "carries one state" in data["look"]["missing"][0]
    assert data["ledger"]["terms"][0]["opened"]["terms"][0]["name"] == "step.0"
    assert "carries one state" in " ".join(printed(seen, 80, colour=False).split())
    with pytest.raises(InputError, match="no attention"):
        look(recurrent, TEXT, layer=0)


def test_the_command(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    folder = str(save_model(model, tmp_path / "m"))
    assert main(["look", folder, TEXT, "--token", "c", "--html", str(tmp_path / "look.html")]) == 0
    shown = capsys.readouterr().out
    assert "logit of “c”" in shown
    assert Page((tmp_path / "look.html").read_text("utf-8")).data["look"]["text"] == TEXT
    monkeypatch.setattr("sys.stdin", io.StringIO(CHINESE))
    assert main(["look", folder, "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == CHINESE
    for words, message in (
        ([folder, ""], "the text is empty"),
        ([folder, TEXT * 9], "this model sees 64 at once"),
        ([folder, TEXT, "--token", "the"], "is not one token"),
        ([folder, TEXT, "--html", str(tmp_path)], "is a directory"),
    ):
        assert main(["look", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_an_output_without_a_token_is_shown_by_its_number(tokenizer: Tokenizer):
    """Published models pad their output matrices: there is no token for the last rows."""
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size + 3, context=16, layers=1, width=16, heads=2, tied=False))
    with torch.no_grad():
        network.lm_head.weight.normal_()
        network.lm_head.weight[-1] *= 100
    model = Model(network.eval(), tokenizer, "padded")
    last = f"<{tokenizer.vocab_size + 2}>"
    texts = {look(model, text).likeliest[0][0] for text in ("the", "cat", "sat", "a", "t")}
    assert last in texts
    assert {found for found in texts if found.startswith("<")} == {last}


def test_the_command_runs_any_analysis(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = str(save_model(model, tmp_path / "m"))
    assert main(["look", folder, TEXT, "--analysis", "logit_lens", "--set", "top=2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["cells"][0][0]["top"]) == 2
    assert main(["look", folder, "--analysis", "spectra", "--html", str(tmp_path / "s.html")]) == 0
    assert "singular values" in capsys.readouterr().out
    assert "receipt" in (tmp_path / "s.html").read_text("utf-8")
    words = ["--analysis", "patch_sweep", "--set", f"corrupt={TEXT[::-1]}", "--set", "what=heads", "--json"]
    assert main(["look", folder, TEXT, *words]) == 0
    assert len(json.loads(capsys.readouterr().out)["values"]) == 3
    assert main(["look", folder, TEXT, "--analysis", "attention", "--check"]) == 0
    assert "Pearson correlation" in capsys.readouterr().out
    for words, message in (
        (["--analysis", "logit_lense"], "unknown analysis 'logit_lense'; did you mean logit_lens"),
        (["--set", "nothing"], "--set takes OPTION=VALUE, but 'nothing' was given"),
        (["--set", "layers=1"], "unknown option of look 'layers'; did you mean layer"),
        (["--analysis", "logit_lens", "--layer", "1"], "unknown option of logit_lens 'layer'"),
        (["--analysis", "occlusion", "--set", "window=two"], "window of occlusion must be a whole number"),
    ):
        assert main(["look", folder, TEXT, *words]) == 2
        assert message in capsys.readouterr().err
