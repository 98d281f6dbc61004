"""Adapters of a task: they learn, PEFT opens them with transformers' class, they merge, and their base is known."""

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from task_toys import write_base, write_reviews

from cutaway.cli import main
from cutaway.errors import ConfigError, DamagedFile, InputError
from cutaway.tasks import TaskConfig, Trained, merge_task, open_task, train_task

transformers = import_module("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = import_module("peft")

TEXTS = ["the film was superb", "a story with dreadful music", "rotten", "lovely and lovely and boring"]
CASES = [("bert", "lora"), ("bert", "dora"), ("bert", "head"), ("llama", "lora"), ("llama", "head")]


def trained(folder: Path, kind: str, how: str, **settings: Any) -> Trained:
    write_base(folder / "base", kind)
    values: dict[str, Any] = {"epochs": 1, "lr": 0.01, "batch": 16, "dropout": 0.0, "threads": 1, "dtype": "fp32"}
    values |= {"evaluations": 2, "test": 0.0}
    data = str(write_reviews(folder / "reviews.tsv"))
    start = str(folder / "base")
    values |= {"start": start, "how": how, **settings}
    return train_task(TaskConfig("classify", data, str(folder / "model"), **values))


@pytest.mark.filterwarnings("ignore")  # transformers tells that the head is fresh
@pytest.mark.parametrize(("kind", "how"), CASES)
def test_peft_opens_it_on_the_published_base_with_transformers_class(kind: str, how: str, tmp_path: Path) -> None:
    made = trained(tmp_path, kind, how, head="published")
    folder = tmp_path / "model" / "adapter"
    stated = json.loads((folder / "adapter_config.json").read_text())
    assert stated["use_dora"] is (how == "dora")
    assert stated["base_model_name_or_path"] == str(tmp_path / "base")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2).eval()
    model = made.model.model
    ids = [model.ids(text) for text in TEXTS]
    with torch.no_grad():
        before = torch.cat([base(row).logits for row in ids])
        theirs = peft.PeftModel.from_pretrained(base, folder).eval()
        after = torch.cat([theirs(row).logits for row in ids])
        ours = torch.cat([model.network(row) for row in ids])
    assert not torch.allclose(before, after, atol=0.1)
    torch.testing.assert_close(ours, after, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "how"), [("bert", "dora"), ("llama", "lora")])
def test_it_learns_and_says_the_same_when_it_is_opened_moved_or_merged(
    kind: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trained(tmp_path, kind, how, epochs=10, test=0.2)
    assert made.report
    assert made.report.figures["accuracy"].value > 0.95
    said = [answer.to_json() for answer in made.model.predict(TEXTS)]
    folder = tmp_path / "model"
    assert not (folder / "model.safetensors").exists()
    assert [answer.to_json() for answer in open_task(folder).predict(TEXTS)] == said
    size = sum(tensor.numel() for tensor in load_file(folder / "adapter" / "adapter_model.safetensors").values())
    assert size < sum(parameter.numel() for parameter in made.model.model.network.parameters()) / 2
    merged = open_task(merge_task(folder, tmp_path / "merged"))
    assert not merged.base
    for a, b in zip(merged.predict(TEXTS), said, strict=True):
        assert a.answer == b["answer"]
        assert a.probability == pytest.approx(b["probability"], abs=1e-5)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="does not exist"):
        open_task(folder)
    assert [a.to_json() for a in open_task(folder, base=str(tmp_path / "elsewhere")).predict(TEXTS)] == said
    (tmp_path / "asked.tsv").write_text("text\n" + "\n".join(TEXTS) + "\n", "utf-8")
    capsys.readouterr()
    words = ["task", "predict", str(folder), str(tmp_path / "asked.tsv"), "--base", str(tmp_path / "elsewhere")]
    assert main([*words, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["answer"] for one in told] == [one["answer"] for one in said]
    with pytest.raises(ConfigError, match="one model already"):
        merge_task(tmp_path / "merged", tmp_path / "again")


def test_another_base_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, "bert", "head")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] += 1
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="trained on another model"):
        open_task(tmp_path / "model")


def test_t7_a_link_in_the_place_of_a_tasks_adapter_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, "bert", "head")
    adapter = tmp_path / "model" / "adapter"
    adapter.rename(tmp_path / "elsewhere")
    adapter.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedFile, match="link"):
        open_task(tmp_path / "model")


def test_only_what_should_learn_does(tmp_path: Path) -> None:
    made = trained(tmp_path, "bert", "head")
    held = load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors")
    assert sorted(held) == ["base_model.model.classifier.bias", "base_model.model.classifier.weight"]
    published = load_file(tmp_path / "base" / "model.safetensors")
    ours = made.model.model.network.state_dict()
    assert torch.equal(
        ours["layers.0.self_attn.q_proj.weight"], published["encoder.layer.0.attention.self.query.weight"]
    )


def test_a_head_of_a_family_that_has_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="field of a checkpoint's head"):
        trained(tmp_path, "bert", "full", network={"layers": 3})


def test_its_base_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = trained(Path(), "bert", "head")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    again = open_task(tmp_path / "model")
    assert again.base == str(tmp_path / "base")
    assert [one.to_json() for one in again.predict(TEXTS)] == [one.to_json() for one in made.model.predict(TEXTS)]
