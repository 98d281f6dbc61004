"""What the studio bears: damaged and hostile folders, many results, models that change, pages that leave, sliders."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import struct
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from serving import Served, serving, tiny_talker

import cutaway
from cutaway.interp import attention_overview, ledger, surprisal
from cutaway.interp.recall import recall, size_of
from cutaway.interp.record import record
from cutaway.interp.results import Panel
from cutaway.models import Model
from cutaway.models.model import step_of, steps_of
from cutaway.serve import Settings
from cutaway.serve.errors import ApiError
from cutaway.serve.models import Models
from cutaway.serve.studio import catalogue as catalogue_module
from cutaway.serve.studio import frames, train
from cutaway.serve.studio.catalogue import catalogue, named, shown, step_folder
from cutaway.serve.studio.kept import Kept, held_by
from cutaway.training import watching
from cutaway.training.order import Order
from cutaway.training.trainings import Trainings
from cutaway.training.watching import Tail, corpora, run_state

TEXT = "hello, how are you"
TURNED = "\u202etxt.exe"  # is shown backwards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("studio")
    tiny_talker(found / "m")
    return found


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    made = cutaway.load_model(folder / "m")
    made.source = "m"
    return made


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(Settings(models={"m": str(folder / "m")}, studio=folder)) as served:
        yield served


def ask(served: Served, route: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{served.url}/studio/{route}", json=body, timeout=60)


def last(answer: httpx.Response) -> Any:
    """The head of the last frame, or the error that it tells."""
    at, body = 0, answer.content
    while True:
        kind, size = body[at : at + 1], struct.unpack_from("<I", body, at + 1)[0]
        held, at = body[at + 5 : at + 5 + size], at + 5 + size
        if kind == b"r":
            return json.loads(held[4 : 4 + struct.unpack_from("<I", held)[0]])
        if kind == b"e":
            return json.loads(held)["error"]["message"]


# names: no two places share one, and none is shown as something else


def test_a_place_keeps_its_name_though_another_is_newer(tmp_path: Path) -> None:
    for number, name in enumerate(("a b", "a.b")):
        tiny_talker(tmp_path / name)
        os.utime(tmp_path / name, (number, number))
    names: dict[str, str] = {}
    before = {name: path for name, (_, path) in catalogue(tmp_path, {}, names).items()}
    os.utime(tmp_path / "a b", (9, 9))
    assert {name: path for name, (_, path) in catalogue(tmp_path, {}, names).items()} == before
    assert len(before) == 2


def test_no_two_places_share_a_name() -> None:
    names: dict[str, str] = {}
    made = [named(place, "run.step-1", names, ["run.step-1-2"]) for place in ("x/1", "y/1", "z/1", "x/1")]
    assert made == ["run.step-1", "run.step-1-3", "run.step-1-4", "run.step-1"]


def test_two_names_of_the_hub_are_two_models(served: Served) -> None:
    one, other, again = (ask(served, "hub", hub=hub).json()["name"] for hub in ("a/b.c", "a.b/c", "a/b.c"))
    assert one != other
    assert again == one
    assert [served.server.models.sources[name] for name in (one, other)] == ["a/b.c", "a.b/c"]


@pytest.mark.skipif(os.name != "posix", reason="names of other systems are text")
def test_hostile_names_are_listed_without_what_is_no_letter(tmp_path: Path) -> None:
    for name in (b"\xff\xfe", TURNED.encode(), b"<img src=x>\n"):
        tiny_talker(tmp_path / os.fsdecode(name))
    with serving(Settings(models={}, studio=tmp_path)) as served:
        listed = httpx.get(f"{served.url}/studio/models").json()["models"]
        assert len(listed) == 3
        assert all(one["about"].isprintable() for one in listed)
        opened = {one["name"]: ask(served, "open", model=one["name"]).status_code for one in listed}
        assert sorted(opened.values()) == [200, 200, 500]  # safetensors opens no path that is not UTF-8
    assert shown(TURNED) == "\ufffdtxt.exe"


def test_t13_a_whole_disk_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_talker(tmp_path / "near")
    for number in range(40):
        (tmp_path / "z" / f"{number}" / "deep").mkdir(parents=True)
    monkeypatch.setattr(catalogue_module, "LOOKED", 30)
    monkeypatch.setattr(watching, "LOOKED", 30)
    looked: list[str] = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: looked.append(str(place)) or real(place))
    assert list(catalogue(tmp_path, {}, {})) == ["near"]
    assert corpora(tmp_path) == {}
    assert len(looked) < 70


def test_names_of_steps_are_those_of_checkpoints(tmp_path: Path) -> None:
    for name in ("step-00000012", "step-x", "step-", "step-7"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert steps_of(tmp_path) == [7, 12]
    assert step_of(tmp_path / "step-x") is None
    assert step_folder(tmp_path, 12) == tmp_path / "checkpoints" / "step-00000012"
    assert step_folder(tmp_path, 8) is None


# models: found while others are loaded, changed, let go


def test_models_that_are_found_while_others_are_loaded_stop_nothing(folder: Path) -> None:
    models = Models(Settings(models={"m": str(folder / "m"), "n": str(folder / "m")}))
    opened: list[str] = []

    class Aside:
        async def aside(self, work: Any) -> Any:
            models.sources[f"found{len(models.sources)}"] = "/nowhere"
            return work()

        def add(self, engine: Any) -> None:
            opened.append(engine.model.source)

    models.bind(Aside())  # pyright: ignore[reportArgumentType]
    asyncio.run(models.start())
    assert opened == ["m", "n"]
    assert len(models.sources) > 2
    for loaded in list(models.loaded.values()):
        loaded.close()


def test_a_damaged_model_beside_it_keeps_no_model_from_opening(tmp_path: Path) -> None:
    tiny_talker(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text('{"model_type": 5}')
    (tmp_path / "bad" / "x.safetensors").write_bytes(b"\xff" * 99)
    with serving(Settings(models={}, studio=tmp_path)) as served:
        assert len(httpx.get(f"{served.url}/studio/models").json()["models"]) == 2
        assert ask(served, "open", model="bad").status_code == 500
        assert ask(served, "open", model="good").status_code == 200


def test_a_model_whose_files_changed_is_opened_anew_and_what_was_made_of_it_is_let_go(tmp_path: Path) -> None:
    place = tmp_path / "m"
    tiny_talker(place)
    with serving(Settings(models={"m": str(place)}, studio=tmp_path)) as served:
        studio = served.server.studio
        assert studio is not None
        asked = {"model": "m", "text": TEXT, "analysis": "surprisal", "options": {}}
        first = last(ask(served, "analyse", **asked))
        assert ask(served, "open", model="m").status_code == 200
        assert last(ask(served, "analyse", **asked))["result"]["scores"] == first["result"]["scores"]
        old = weakref.ref(served.server.models.loaded["m"].model)
        shutil.rmtree(place)
        tiny_talker(place, layers=3)
        opened = ask(served, "open", model="m").content
        assert json.loads(opened[4 : 4 + struct.unpack_from("<I", opened)[0]])["layers"] == 3
        assert last(ask(served, "analyse", **asked))["result"]["scores"] != first["result"]["scores"]
        assert ask(served, "code", id=first["id"]).json()["error"]["code"] == "result_gone"
        gc.collect()
        assert old() is None


# results: within memory, whatever they hold


def test_t13_results_are_let_go_by_number_and_by_bytes(model: Model) -> None:
    kept = Kept(most=3, room=10**9)
    names = [kept.add(surprisal(model, TEXT)) for _ in range(5)]
    assert [name in kept for name in names] == [False, False, True, True, True]
    with pytest.raises(ApiError, match="no longer open"):
        kept.get(names[0])
    run = record(model, TEXT)
    whole = sum(size_of(value) for value in run.values())
    roomy = Kept(most=99, room=3 * whole)
    for _ in range(50):  # which share what they were read of
        roomy.add(ledger(run))
    assert len(roomy) == 50
    assert whole <= roomy.bytes < roomy.room
    for _ in range(200):
        roomy.add(ledger(record(model, TEXT)))
        assert roomy.bytes <= roomy.room
    assert len(roomy) < 5
    roomy.forget("m")
    assert (len(roomy), roomy.bytes) == (0, 0)


def test_what_a_result_holds_is_counted(model: Model) -> None:
    small, formed = surprisal(model, TEXT), recall(model, TEXT)
    assert sum(held_by(small).values()) < 1000
    overview = attention_overview(formed)
    assert sum(held_by(overview).values()) > formed._values.room  # pyright: ignore[reportAttributeAccessIssue]
    weights = {p.untyped_storage().data_ptr() for p in model.network.parameters()}
    assert not weights & held_by(overview).keys()


def test_studies_stay_within_their_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutaway.serve.studio.studio.ROOM", 1)
    for letter in "abcdef":
        last(ask(served, "ledger", model="m", text=TEXT + letter, options={}))
    assert served.server.studio is not None
    assert len(served.server.studio._studies) == 1


# time: who waits for what, who leaves


def test_sliders_are_followed_beside_a_long_analysis(served: Served) -> None:
    studio = served.server.studio
    assert studio is not None
    going = threading.Event()

    def long() -> None:
        going.wait(30)

    studio.submit(long)
    try:
        for raised in (0.0, 1.0):
            asked = {"model": "m", "text": f"{TEXT}!", "analysis": "loss_by_hand", "options": {"raised": raised}}
            assert last(ask(served, "analyse", **asked))["result"]["figures"]
    finally:
        going.set()


def test_a_page_that_leaves_before_the_first_frame_gives_all_back() -> None:
    closed = []

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    async def gone(*_: Any) -> Any:
        raise OSError

    async def until_gone() -> Any:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    answer = frames.Answer(nothing(), lambda: closed.append(True))
    with pytest.raises(BaseException):  # noqa: B017 (a group of what both sides raise)
        asyncio.run(answer({"type": "http"}, until_gone, gone))
    assert closed == [True]


def test_watching_a_training_that_is_taken_away_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Settings(models={}, studio=tmp_path)) as served:
        studio = served.server.studio
        assert studio is not None
        place = tmp_path / "trainings" / "t"
        place.mkdir(parents=True)
        (place / "order.json").write_text("{}")
        (place / "training.json").write_text('{"state": "running"}')
        with httpx.stream("POST", f"{served.url}/studio/train/watch", json={"run": "t"}, timeout=30) as answer:
            parts = answer.iter_raw()
            assert next(parts)[:1] == b"d"
            monkeypatch.setattr(train, "_state", lambda studio, run, place: studio.trainings.state("gone"))
            rest = b"".join(parts)
        assert rest[:1] == b"e"
        assert b"there is no training called 'gone'" in rest
        assert studio.watching == 0


def test_so_many_pages_may_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MOST_WATCHED", 0)
    with serving(Settings(models={}, studio=tmp_path)) as served:
        (tmp_path / "trainings" / "t").mkdir(parents=True)
        (tmp_path / "trainings" / "t" / "order.json").write_text("{}")
        answer = ask(served, "train/watch", run="t")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_watch")


# files that are not what they should be


HOSTILE: list[dict[str, Any]] = [
    {"state": {"a": 1}, "done": "x", "figures": [1], "message": 7, "total": {}},
    {"state": "nothing", "figures": {"loss": {"a": [1]}}, "unit": None},
    {"state": "finished", "done": True, "stage": "<script>", "changed": 4, "own": 3},
]


@pytest.mark.parametrize("told", HOSTILE)
def test_a_run_whose_files_are_damaged_is_listed(tmp_path: Path, told: dict[str, Any]) -> None:
    for place in (tmp_path / "trainings" / "t", tmp_path / "run"):
        (place / "checkpoints" / "step-odd").mkdir(parents=True)
        (place / "order.json").write_text("[]")
        (place / "training.json").write_text(json.dumps(told))
        config = {"config": {"steps": "many", "lr": [1], "network": 4}, "notes": 9}
        (place / "config.json").write_text(json.dumps(config))
        (place / "baseline.json").write_text('{"loss": NaN}')
        (place / "metrics.jsonl").write_text(
            '{"step": 1, "loss": "a"}\n{"step": 2, "loss": NaN}\n[]\n{"step": {}}\n\xff\n'
        )
    assert run_state(tmp_path / "run", "run").planned == 0
    assert Trainings(tmp_path / "trainings").state("t").state in ("interrupted", "finished")
    with serving(Settings(models={}, studio=tmp_path)) as served:
        listed = httpx.get(f"{served.url}/studio/train").json()["runs"]
        assert sorted(one["name"] for one in listed) == ["run", "t"]
        read = ask(served, "train/read", run="t")
        assert [(one["step"], one.get("loss")) for one in read.json()["records"]] == [(2, None)]


def test_of_endless_metrics_the_last_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LONGEST", 200)
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1000)))
    tail = Tail(tmp_path)
    again, records = tail.read()
    assert again
    assert 5 < len(records) < 20
    assert records[-1] == {"step": 999}
    with file.open("a") as more:
        more.write('{"step": 1000}\n')
    assert tail.read() == (False, [{"step": 1000}])


@pytest.mark.skipif(os.name != "posix", reason="links need a right elsewhere")
def test_t7_features_are_not_written_through_a_link(served: Served, folder: Path, tmp_path: Path) -> None:
    (folder / "features").mkdir()
    (folder / "features" / "m").symlink_to(tmp_path)
    asked = {"name": "f", "texts": [TEXT * 9], "activation": "layers.0.mlp_out", "width": 2, "k": 1, "samples": 256}
    said = last(ask(served, "features/learn", model="m", **asked))
    (folder / "features" / "m").unlink()
    assert "is a link, which is not followed" in said
    assert not list(tmp_path.iterdir())


def test_t14_receipts_tell_no_place_to_other_machines(model: Model, folder: Path) -> None:
    place = str(folder.resolve())
    own = surprisal(model, TEXT)
    told = replace(own, receipt=replace(own.receipt, code=f"result = f('{place}/run')", source=f"{place}/run"))
    panel = Panel("both", {"one": told}, receipt=told.receipt)
    for token in (None, "secret"):
        with serving(Settings(models={}, studio=folder, token=token)) as served:
            assert served.server.studio is not None
            kept = served.server.studio.keep(panel)
        assert (place in str(kept["result"].to_json())) is (token is None)
        assert kept["result"]["one"].scores == own.scores


@pytest.mark.parametrize("text", ["{", '{"version": 1, "task": {"a": 1}}'])
def test_t14_a_damaged_report_is_told_without_a_path(served: Served, folder: Path, text: str) -> None:
    (folder / "m" / "report.json").write_text(text)
    answer = ask(served, "evaluation", model="m")
    (folder / "m" / "report.json").unlink()
    assert answer.status_code == 404
    assert str(folder) not in answer.text


def test_a_table_has_as_many_rows_as_a_page_works_on(served: Served) -> None:
    answer = ask(served, "table", table="text,label\n" + "a,b\n" * 5001)
    assert (answer.status_code, answer.json()["error"]["message"][:30]) == (400, "the table has more than 5,000 ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nonsense": 1}, "unknown option of ledger 'nonsense'"),
        ({"position": "a"}, "position of ledger must be a whole number, but 'a' was given"),
        ({"what": 5}, "what of ledger must be text"),
        ({"token": True}, "token of ledger must be text or a whole number"),
        ({"row": None}, "row of ledger must be a whole number"),
        ({"seed": 10**30}, "seed of ledger has a number that is too large"),
        ({"source": "a"}, "source is no option"),
        ({"self": 1}, "unknown option of ledger 'self'"),
    ],
)
def test_what_a_ledger_is_asked_is_checked(served: Served, options: dict[str, Any], said: str) -> None:
    assert said in last(ask(served, "ledger", model="m", text=TEXT, options=options))


def test_an_order_is_not_begun_twice(tmp_path: Path) -> None:
    trainings = Trainings(tmp_path)
    trainings.start("one", Order(steps=10_000_0, size=1), texts={"a": TEXT * 50})
    try:
        with pytest.raises(Exception, match="one runs at a time"):
            trainings.start("two", Order(steps=10, size=1), texts={"a": TEXT * 50})
    finally:
        trainings.close()
    deadline = time.monotonic() + 60
    while trainings.state("one").running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not trainings.state("one").running


def test_complex_numbers_are_sent_as_pairs() -> None:
    from cutaway.interp.pictures.wire import packed

    made = packed({"x": torch.tensor([1 + 2j, 3 - 4j])})
    size = struct.unpack_from("<I", made)[0]
    assert json.loads(made[4 : 4 + size])["x"]["$tensor"]["shape"] == [2, 2]
    at = 4 + size + -(4 + size) % 8
    assert struct.unpack_from("<4f", made, at) == (1, 2, 3, -4)


def test_models_are_called_as_their_folders_are_in_any_script(tmp_path: Path) -> None:
    for name in ("评论模型", "mes modèles"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{}")
    assert set(catalogue(tmp_path, {}, {})) == {"评论模型", "mes.modèles"}
