"""A look: its page holds everything and asks for nothing; its terminal pictures keep to their width; its command."""

import base64
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from saved_page import Page, give_script

from cutaway import save_model
from cutaway.cli import main
from cutaway.errors import InputError
from cutaway.interp import Look, attention, ledger, logit_lens, look, surprisal
from cutaway.models import Decoder, DecoderConfig, Model
from cutaway.tokenizers import Tokenizer

TEXT = "the cat sat"
CHINESE = "你好吗\n<b>"


def printed(result: object, width: int, *, colour: bool) -> str:
    system = "truecolor" if colour else None
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=system, force_terminal=colour, legacy_windows=False)
    console.print(result)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.fixture
def seen(model: Model) -> Look:
    return look(model, TEXT)


@pytest.fixture(autouse=True)
def script(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    give_script(tmp_path_factory.mktemp("static"), monkeypatch)


def test_the_page_asks_for_nothing_and_allows_only_its_own_script(seen: Look):
    page = Page(seen.to_html())
    assert "default-src 'none'" in page.policy
    for tag in ("style", "script"):
        held = base64.b64encode(hashlib.sha256(page.inside[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{held}'" in page.policy
    assert not [a for _, a in page.elements if a.keys() & {"src", "href", "action", "style", "onclick"}]


def test_no_text_leaves_its_place_in_the_page(model: Model):
    page = look(model, CHINESE).to_html()
    read = Page(page)
    assert read.parts[0]["text"] == CHINESE
    assert [tag for tag, _ in read.elements if tag in ("b", "script")] == ["script", "script"]
    assert "<title>你好吗 &lt;b&gt; · Cutaway</title>" in page


def test_the_page_holds_the_numbers(seen: Look):
    page = Page(seen.to_html())
    assert page.held["receipt"]["difference"] == 0.0
    assert page.pictures == ["look"]
    data = page.parts[0]["parts"]
    assert list(data) == ["surprisal", "ledger", "attention", "lens"]
    assert seen.surprisal
    assert data["surprisal"]["scores"] == seen.surprisal.scores
    assert seen.lens
    np.testing.assert_array_equal(data["lens"]["probabilities"], seen.lens.probabilities.numpy())
    levels = [data["ledger"], *data["ledger"]["levels"].values()]
    assert len(levels) == 1 + 3 * (4 + 1)
    for level in levels:
        assert sum(term["value"] for term in level["terms"]) == pytest.approx(level["total"], abs=1e-4)
    opened = seen.ledger.expand("layers.1.mlp")
    mlp = {term["name"]: term for term in data["ledger"]["levels"]["layers.1.mlp"]["terms"]}
    assert len(mlp) == 33
    assert mlp["others"]["label"] == f"{len(opened.terms) - 32} others"
    assert {term.name: term.value for term in opened.top(32)}.items() <= {n: t["value"] for n, t in mlp.items()}.items()
    assert not any(term["opens"] for term in mlp.values())
    assert seen.attention
    held = data["attention"]
    assert np.abs(held["patterns"] - seen.attention.patterns.numpy()).max() <= 0.5 / 65536
    assert (held["first"], held["tokens"]) == (0, seen.tokens)


def test_a_long_text_keeps_the_last_tokens_of_attention(model: Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cutaway.interp.pictures.page.ATTENTION_BYTES", 2 * 12 * 40)
    whole = attention(model, TEXT)
    held = whole.page_data()
    left_out = held["first"]
    kept = len(TEXT) - left_out
    assert 0 < kept < len(TEXT)
    assert kept * (kept + 1) // 2 <= 40
    assert held["tokens"] == whole.tokens[left_out:]
    np.testing.assert_allclose(held["patterns"], whole.patterns[:, :, left_out:, left_out:], atol=0.5 / 65536)
    sides = replace(whole, patterns=whole.patterns.softmax(-1), causal=False).page_data()
    assert sides["patterns"].shape[3] == len(sides["keys"]) == len(TEXT)
    assert sides["patterns"].shape[2] == len(sides["tokens"]) == len(TEXT) - sides["first"] < len(TEXT)


def test_every_result_is_a_page_of_its_own(model: Model):
    results = {f.__name__: f(model, TEXT) for f in (surprisal, attention, logit_lens, ledger)}
    pictures = {name: Page(result.to_html()).pictures for name, result in results.items()}
    assert pictures == {
        "surprisal": ["scores"],
        "attention": ["attention"],
        "logit_lens": ["lens"],
        "ledger": ["ledger"],
    }


def test_where_pages_are_not_built_they_hold_what_a_terminal_shows(
    seen: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cutaway.interp.pictures.page._built", lambda: tmp_path)
    text = seen.to_html()
    page = Page(text)
    assert "python studio/build_backend.py" in page.inside["p"]
    assert "script" not in [tag for tag, _ in page.elements]
    held = base64.b64encode(hashlib.sha256(page.inside["style"].encode()).digest()).decode()
    assert page.policy == f"default-src 'none'; style-src 'sha256-{held}'; base-uri 'none'; form-action 'none'"
    shown = html.unescape(re.sub("<[^>]+>", "", text.partition("<pre>")[2].partition("</pre>")[0]))
    assert shown.split() == printed(seen, 110, colour=True).split()


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
    (data,) = Page(seen.to_html()).parts
    assert "carries one state" in data["missing"][0]
    terms = data["parts"]["ledger"]["terms"]
    assert data["parts"]["ledger"]["levels"][terms[0]["name"]]["terms"][0]["name"] == "step.0"
    assert "carries one state" in " ".join(printed(seen, 80, colour=False).split())
    with pytest.raises(InputError, match="no attention"):
        look(recurrent, TEXT, layer=0)


def test_the_command(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    folder = str(save_model(model, tmp_path / "m"))
    assert main(["look", folder, TEXT, "--token", "c", "--html", str(tmp_path / "look.html")]) == 0
    shown = capsys.readouterr().out
    assert "logit of “c”" in shown
    assert Page((tmp_path / "look.html").read_text("utf-8")).parts[0]["text"] == TEXT
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
    held = Page((tmp_path / "s.html").read_text("utf-8")).held
    assert "spectra(model" in held["receipt"]["code"]
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
