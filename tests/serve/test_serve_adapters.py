"""Adapters behind the API: models of their own in every route, on the weights of a base that is there once."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving import Served, serving, tiny_talker

from cutaway.errors import ConfigError
from cutaway.models import EncoderConfig, Model, build_network, load_model, save_model
from cutaway.models.adapters import AdapterConfig, add_adapter, load_adapter, merge_adapter, save_adapter
from cutaway.serve import Settings
from cutaway.serve.adapters import adapters_of
from cutaway.serve.models import Models

THIN = AdapterConfig(r=4, lora_alpha=16)
DORA = AdapterConfig(r=2, lora_alpha=16, target_modules=("q_proj", "down_proj"), use_dora=True)
WHOLE = AdapterConfig(r=2, lora_alpha=16, target_modules=("v_proj",), modules_to_save=("norm",))


def save(base: Model, config: AdapterConfig, folder: Path, seed: int) -> str:
    model = add_adapter(base, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return str(save_adapter(model, folder))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("adapters")
    base = load_model(tiny_talker(root / "base"))
    made = {"base": str(root / "base")}
    for seed, (name, config) in enumerate({"thin": THIN, "dora": DORA, "whole": WHOLE}.items()):
        made[name] = save(base, config, root / name, seed)
    torch.manual_seed(0)
    labels = {"head": "sequence_classification", "labels": ("no", "yes"), "position": "rotary"}
    encoder = build_network(EncoderConfig(base.tokenizer.vocab_size, 64, 2, 32, 4, **labels))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    made["judge"] = str(save_model(Model(encoder, base.tokenizer), root / "judge"))
    return made


@pytest.fixture(scope="module")
def served(folders: dict[str, str]):
    names = ("thin", "dora", "whole")
    with serving(Settings(models={"base": folders["base"]}, adapters={name: folders[name] for name in names})) as made:
        yield made


def complete(served: Served, model: str, **keys: Any) -> dict[str, Any]:
    asked = {"model": model, "prompt": "hello, how", "max_tokens": 12, "temperature": 0, **keys}
    answer = httpx.post(f"{served.url}/v1/completions", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_adapter_is_listed_with_its_base_as_parent(served: Served) -> None:
    listed = httpx.get(f"{served.url}/v1/models").json()["data"]
    assert {card["id"]: card["parent"] for card in listed} == {
        "base": None,
        "thin": "base",
        "dora": "base",
        "whole": "base",
    }
    assert httpx.get(f"{served.url}/v1/models/dora").json()["parent"] == "base"


def test_each_name_answers_as_the_merged_model_does(served: Served, folders: dict[str, str]) -> None:
    base = load_model(folders["base"])
    found = {name: complete(served, name)["choices"][0]["text"] for name in ("base", "thin", "dora", "whole", "thin")}
    assert found["base"] == base.generate("hello, how", max_new_tokens=12, temperature=0).text
    for name in ("thin", "dora", "whole"):
        merged = merge_adapter(load_adapter(base, folders[name]))
        assert found[name] == merged.generate("hello, how", max_new_tokens=12, temperature=0).text
    assert len(set(found.values())) == 4
    chat = {"model": "dora", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    assert httpx.post(f"{served.url}/v1/chat/completions", json=chat, timeout=60).json()["model"] == "dora"


def test_the_same_request_gives_the_same_answer_beside_other_adapters(served: Served) -> None:
    asked = [("base", 1), ("thin", 2), ("dora", 3), ("whole", 4), ("thin", 5), ("dora", 6), ("base", 7), ("thin", 8)]

    def ask(name: str, seed: int) -> Any:
        choice = complete(served, name, seed=seed, temperature=1, logprobs=2, max_tokens=20)["choices"][0]
        return choice["text"], choice["logprobs"]

    alone = [ask(*one) for one in asked]
    found: list[Any] = [None] * len(asked)
    threads = [
        threading.Thread(target=lambda i=i, one=one: found.__setitem__(i, ask(*one))) for i, one in enumerate(asked)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@pytest.mark.parametrize(
    "name", ["../thin", "thin/../dora", "/etc/passwd", "thin@base", "thin\u0000", "Thin", ".", "é"]
)
def test_t7_a_name_that_is_no_adapters_is_refused_and_opens_nothing(name: str, served: Served) -> None:
    asked = {"model": name, "prompt": "x"}
    answer = httpx.post(f"{served.url}/v1/completions", json=asked, timeout=60)
    assert answer.status_code in (400, 404)
    assert "passwd" not in answer.text or name == "/etc/passwd"
    assert set(served.server.models.loaded) <= {"base", "thin", "dora", "whole"}


def test_t7_names_of_adapters_are_plain_and_bases_exist(folders: dict[str, str]) -> None:
    models = {"base": folders["base"], "other": folders["base"]}
    made = adapters_of(Settings(models=models, adapters={"a": folders["thin"], "b": folders["thin"] + "@other"}))
    assert {name: one.base for name, one in made.items()} == {"a": "base", "b": "other"}
    assert str(made["b"].folder) == folders["thin"]
    with pytest.raises(ConfigError, match="did you mean other"):
        adapters_of(Settings(models=models, adapters={"a": folders["thin"] + "@othr"}))


def test_adapters_leave_with_their_base_and_make_room(folders: dict[str, str]) -> None:
    settings = Settings(
        models={"base": folders["base"], "more": folders["base"]},
        adapters={"thin": folders["thin"], "whole": folders["whole"], "dora": folders["dora"] + "@more"},
    )
    with serving(settings) as served:
        for name in ("thin", "whole", "dora"):
            complete(served, name)
        models: Models = served.server.models
        held = {name: loaded.sizes.total for name, loaded in models.loaded.items()}
        assert held.keys() == {"base", "more", "thin", "whole", "dora"}
        assert models.loaded["thin"].engine is models.loaded["base"].engine
        assert all(0 < size < held["base"] for name, size in held.items() if name in ("thin", "dora"))
        free = models.free
        loop = served.server.bridge._loop
        asyncio.run_coroutine_threadsafe(models.unload(models.loaded["thin"]), loop).result(10)
        assert models.free == free + held["thin"]
        before = complete(served, "base")
        asyncio.run_coroutine_threadsafe(models.unload(models.loaded["base"]), loop).result(10)
        assert models.loaded.keys() == {"more", "dora"}
        assert complete(served, "thin")["choices"]
        assert complete(served, "base")["choices"] == before["choices"]
        assert all(not loaded.users for loaded in models.loaded.values())


def test_an_adapter_that_cannot_be_opened_is_an_error_of_its_own(folders: dict[str, str], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in Path(folders["thin"]).iterdir():
        (damaged / path.name).write_bytes(path.read_bytes()[:-4])
    settings = Settings(models={"base": folders["base"]}, adapters={"bad": str(damaged), "thin": folders["thin"]})
    with serving(settings) as served:
        asked = {"model": "bad", "prompt": "x"}
        answer = httpx.post(f"{served.url}/v1/completions", json=asked, timeout=60)
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "model_unavailable"
        assert str(tmp_path) not in answer.text
        assert complete(served, "thin")["choices"]
        assert served.server.models.loaded["base"].users == 0


def test_an_adapter_of_a_model_that_classifies(folders: dict[str, str], tmp_path: Path) -> None:
    base = load_model(folders["judge"])
    folder = save(base, AdapterConfig(r=4, lora_alpha=16), tmp_path / "adapter", 3)
    with serving(Settings(models={"judge": folders["judge"]}, adapters={"other": folder})) as served:
        found = {}
        for name in ("judge", "other"):
            asked = {"model": name, "input": ["hello", "how are you"]}
            answer = httpx.post(f"{served.url}/v1/classify", json=asked, timeout=60)
            assert answer.status_code == 200, answer.text
            found[name] = [one["probs"] for one in answer.json()["data"]]
        expected = load_adapter(base, folder).logits("hello")[0].softmax(-1)
        torch.testing.assert_close(torch.tensor(found["other"][0]), expected, atol=1e-5, rtol=1e-4)
        assert found["judge"] != found["other"]


def in_loop(served: Served, made: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(made, served.server.bridge._loop).result(30)


def test_a_base_that_is_being_unloaded_is_used_by_nobody(folders: dict[str, str]) -> None:
    settings = Settings(models={"base": folders["base"]}, adapters={"thin": folders["thin"]}, cache_memory=16 << 20)
    with serving(settings) as served:
        complete(served, "thin")
        models: Models = served.server.models

        async def at_once() -> None:
            leaving = asyncio.create_task(models.unload(models.loaded["base"]))
            await asyncio.sleep(0)  # it has begun
            used = await models.use("base")
            await leaving
            assert models.loaded["base"] is used
            assert not used.engine.closed
            models.release(used)

        in_loop(served, at_once())
        assert complete(served, "thin")["choices"]


def test_a_model_is_unloaded_though_whoever_wanted_its_room_leaves(folders: dict[str, str]) -> None:
    with serving(Settings(models={"base": folders["base"]}, cache_memory=16 << 20)) as served:
        models: Models = served.server.models
        one, free = models.loaded["base"], models.free
        engine, size = one.engine, one.sizes.total

        async def leave() -> None:
            leaving = asyncio.create_task(models.unload(one))
            await asyncio.sleep(0)
            assert models.free == free  # until it is closed
            leaving.cancel()
            await asyncio.wait([leaving])
            while models.free == free:
                await asyncio.sleep(0.01)

        in_loop(served, leave())
        assert engine.closed
        assert models.free == free + size


def test_who_waits_for_room_keeps_no_adapter_waiting(folders: dict[str, str]) -> None:
    first = Models(Settings(models={"base": folders["base"]}, cache_memory=16 << 20))
    one = first._opened("base", Path(folders["base"]), 1 << 40).sizes.total
    settings = Settings(
        models={"base": folders["base"], "more": folders["base"]},
        adapters={"thin": folders["thin"]},
        memory=int(1.8 * one) + first.program + 4 * (64 << 20),
        cache_memory=16 << 20,
        deadline=15,
    )
    with serving(settings) as served, ThreadPoolExecutor(1) as pool:
        models: Models = served.server.models
        held = in_loop(served, models.use("base"))
        waits = pool.submit(complete, served, "more")
        while not served.server.works:
            time.sleep(0.01)
        time.sleep(0.1)
        assert complete(served, "thin")["choices"]  # on the base that is in use
        assert not waits.done()
        served.server.bridge._loop.call_soon_threadsafe(models.release, held)
        assert waits.result()["choices"]
