"""Ways to damage a file that know its format. Each takes a random.Random, so that a number alone replays a file."""

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

Rng = random.Random
BOUNDARIES = (0, 1, 2, 7, 2**8, 2**15, 2**16, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**40, 2**61, 2**63 - 1)
BOUNDARIES += (2**63, 2**64 - 32, 2**64 - 1)


class Raw(str):
    """A piece of JSON that is put into the text as it stands."""


ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 5, 16, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 10**12, -(10**12), 2**70, 0.0,
    -0.0, 0.5, 1.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), "", "x", "1", "ẞ中🌍", "\0",
    "\x1b[2J", "a\nb", "../x", "/etc/passwd", "%s%n{0}{{}}", [], [[]], [0], ["x"], [["x"]], [1] * 3, [None], [{}], {},
    {"0": 1}, {"x": {}}, {"1": "a", "0": "b"}, [0, [1, [2]]], "x" * 300, "x" * 70_000, [0] * 1000, Raw("1e999"),
    Raw("-1e999"),
    Raw("1" + "0" * 400), Raw("-1" + "0" * 400), Raw("9" * 5000), Raw("[" * 400 + "]" * 400), Raw("[" * 60_000),
    Raw('{"a":' * 900 + "1" + "}" * 900), Raw('"\\ud800"'), Raw('"\\u0000"'), Raw("NaN"), Raw("-Infinity"), Raw("01"),
    Raw("{}}"), Raw("'x'"), Raw("{,}"), Raw('"\\q"'),
)  # fmt: skip


def dump(value: Any) -> bytes:
    """JSON with its raw pieces, and dicts given as lists of pairs in `Pairs`, in place."""
    return _text(value).encode("utf-8", "surrogatepass")


def pick(rng: Rng, odd: Sequence[Any]) -> Any:
    """One of the values, a copy of it: what is done to it must not be there in the next input."""
    return copy.deepcopy(rng.choice(odd))


class Pairs(list):
    """A JSON object by its keys and values, of which some may be there twice."""


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_text(part)}" for key, part in value) + "}"
    if isinstance(value, dict):
        return _text(Pairs(value.items()))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value)


def places(value: Any, way: tuple[Any, ...] = (), most: int = 40) -> list[tuple[Any, ...]]:
    """The way to every part of a JSON value; of long ones to the first and last few."""
    inside = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    inside = inside if len(inside) <= most else inside[: most // 2] + inside[-most // 2 :]
    return [way, *(place for key, part in inside for place in places(part, (*way, key), most))]


def _at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def mutate_value(rng: Rng, value: Any, odd: tuple[Any, ...] = ODD) -> Any:
    """Change one to three places of a JSON value (a copy of it)."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = [way for way in places(value) if way]
        if not found:
            return pick(rng, odd)
        way = rng.choice(found)
        parent, key = _at(value, way[:-1]), way[-1]
        if isinstance(parent, Pairs):
            continue
        change = rng.randrange(10)
        if change < 6:
            parent[key] = pick(rng, odd)
        elif change == 6:
            del parent[key]
        elif change == 7:
            other = rng.choice(found)
            parent[key] = json.loads(json.dumps(_at(value, other), default=str)) if _plain(value) else None
        elif change == 8 and isinstance(parent, dict):
            parent[rng.choice(("secret", "__proto__", "auto_map", "", "a" * 5000, "\0"))] = pick(rng, odd)
        elif isinstance(parent, dict) and len(way) > 1:
            twice = Pairs([*parent.items(), (key, pick(rng, odd))])
            _at(value, way[:-2])[way[-2]] = twice
            return value
        elif isinstance(parent, list):
            parent.extend([parent[key]] * rng.choice((1, 7)))
    return value


def _plain(value: Any) -> bool:
    if isinstance(value, Raw | Pairs):
        return False
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    return all(map(_plain, value)) if isinstance(value, list) else True


def mutate_json(rng: Rng, data: bytes, odd: tuple[Any, ...] = ODD) -> bytes:
    """JSON with odd values, doubled, missing and unknown keys; sometimes with damaged bytes."""
    if rng.random() < 0.12:
        return mutate_bytes(rng, data)
    return dump(mutate_value(rng, json.loads(data), odd))


def mutate_lines(rng: Rng, data: bytes) -> bytes:
    """JSON lines, one of which is changed."""
    lines = data.splitlines(keepends=True)
    if not lines or rng.random() < 0.2:
        return mutate_bytes(rng, data)
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(rng, lines[number]) + b"\n"
    return b"".join(lines)


def mutate_bytes(rng: Rng, data: bytes, head: int = 700) -> bytes:
    """Bytes changed, cut out, put in, doubled; most of them near the beginning."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        if not changed:
            break
        place = rng.randrange(min(len(changed), head) if rng.random() < 0.8 else len(changed))
        how = rng.randrange(8)
        if how == 0:
            changed[place] = rng.randrange(256)
        elif how == 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif how == 2:
            changed[place : place + 8] = struct.pack("<Q", rng.choice(BOUNDARIES))
        elif how == 3:
            changed[place : place + 4] = struct.pack("<I", rng.choice(BOUNDARIES) & 0xFFFFFFFF)
        elif how == 4:
            del changed[place : place + rng.randint(1, 40)]
        elif how == 5:
            changed[place:place] = rng.randbytes(rng.randint(1, 16))
        elif how == 6:
            changed[place:place] = changed[place : place + rng.randint(1, 200)]
        else:
            del changed[place : None if rng.random() < 0.3 else place + 1]
    return bytes(changed)


# safetensors

DTYPES = (
    "F32",
    "F16",
    "BF16",
    "F64",
    "I8",
    "U8",
    "I64",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "C64",
    "U16",
    "X",
    "",
    "f32",
)


def mutate_safetensors(rng: Rng, data: bytes) -> bytes:
    """A head whose lengths, offsets, shapes and kinds lie; or data cut short or grown."""
    if rng.random() < 0.15:
        return mutate_bytes(rng, data)
    length = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = [name for name in head if name != "__metadata__"]
    for _ in range(rng.choice((1, 1, 2))):
        entry = head[rng.choice(names)]
        if not isinstance(entry, dict):
            continue
        other = head[rng.choice(names)]
        how = rng.randrange(10)
        if how == 0:
            entry["data_offsets"] = [rng.choice((-1, *BOUNDARIES)), rng.choice((-1, *BOUNDARIES, 2**70))]
        elif how == 1 and isinstance(other, dict):  # overlapping
            entry["data_offsets"] = other.get("data_offsets")
        elif how == 2:
            entry["shape"] = [rng.choice(BOUNDARIES) for _ in range(rng.randint(0, 4))]
        elif how == 3:
            entry["shape"] = [*reversed(entry["shape"] if isinstance(entry.get("shape"), list) else [])]
        elif how == 4:
            entry["shape"] = [1] * rng.choice((1, 8, 70, 3000)) + (
                entry["shape"] if isinstance(entry.get("shape"), list) else []
            )
        elif how == 5:
            entry["dtype"] = rng.choice(DTYPES)
        elif how == 6:  # a kind of the same size
            entry["dtype"] = rng.choice(("I32", "U32", "F32"))
        elif how == 7:
            name = rng.choice(names)
            head[rng.choice((name + ".x", "x" * 9000, "\0", "", name.replace("0", "99"), "\x1b[2J"))] = head[name]
        elif how == 8:
            del head[rng.choice([name for name in names if name in head] or [next(iter(head))])]
            names = [name for name in names if name in head]
        else:
            entry[rng.choice(("shape", "data_offsets", "dtype"))] = pick(rng, ODD)
        if not names:
            break
    value: Any = head
    if rng.random() < 0.1:
        value = Pairs([*head.items(), *list(head.items())[:1]])
    elif rng.random() < 0.1:
        value = mutate_value(rng, head) if _plain(head) else head
    elif rng.random() < 0.1:
        value = head | {"__metadata__": pick(rng, ODD)}
    text = dump(value)
    size = rng.choice(BOUNDARIES) if rng.random() < 0.08 else len(text)
    if rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)] if rng.random() < 0.5 else body + bytes(rng.randint(1, 5000))
    return struct.pack("<Q", size) + text + body


# GGUF, by its own grammar: a list of pieces, of which those that count, measure or place something are marked

FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}


class _Taker:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, form: str) -> Any:
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> bytes:
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.number("I"), self.number("Q")
            return inner, [self.value(inner) for _ in range(count)]
        return self.number(FORMS[kind])


def parse_gguf(data: bytes) -> tuple[list[list[Any]], list[list[Any]], bytes, int]:
    """Keys [name, kind, value], tensors [name, dimensions, kind, offset], the data, and the alignment."""
    taker = _Taker(data)
    taker.at = 8
    tensors, keys = taker.number("Q"), taker.number("Q")
    metadata = []
    for _ in range(keys):
        name, kind = taker.text(), taker.number("I")
        metadata.append([name, kind, taker.value(kind)])
    entries = []
    for _ in range(tensors):
        name, count = taker.text(), taker.number("I")
        shape = [taker.number("Q") for _ in range(count)]
        entries.append([name, shape, taker.number("I"), taker.number("Q")])
    alignment = next((value for name, _, value in metadata if name == b"general.alignment"), 32)
    return metadata, entries, data[-(-taker.at // alignment) * alignment :], alignment


class _Giver:
    """Pieces of a file; `fields` are the numbers of those that a reader counts, measures or places by."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.fields: list[int] = []

    def field(self, form: str, value: int) -> None:
        self.fields.append(len(self.pieces))
        self.pieces.append(struct.pack("<" + form, value))

    def text(self, value: bytes) -> None:
        self.field("Q", len(value))
        self.pieces.append(value)

    def value(self, kind: int, value: Any) -> None:
        if kind == 8:
            self.text(value)
        elif kind == 9:
            self.field("I", value[0])
            self.field("Q", len(value[1]))
            for part in value[1]:
                self.value(value[0], part)
        else:
            self.pieces.append(struct.pack("<" + FORMS[kind], value))


def mutate_gguf(rng: Rng, data: bytes) -> bytes:
    """Keys, kinds, lists, tensors and the fields that count, measure and place them."""
    if rng.random() < 0.15:
        return mutate_bytes(rng, data)
    metadata, entries, body, alignment = parse_gguf(data)
    for _ in range(rng.choice((0, 1, 1, 2))):
        GGUF_CHANGES[rng.randrange(len(GGUF_CHANGES))](rng, metadata, entries)
    giver = _Giver()
    giver.pieces.append(b"GGUF" + struct.pack("<I", 3))
    giver.field("Q", len(entries))
    giver.field("Q", len(metadata))
    for name, kind, value in metadata:
        giver.text(name)
        giver.field("I", kind)
        if isinstance(value, bytes) and kind != 8:
            giver.pieces.append(value)  # as it stands
        else:
            giver.value(kind, value)
    for name, shape, kind, offset in entries:
        giver.text(name)
        giver.field("I", len(shape))
        for size in shape:
            giver.field("Q", size)
        giver.field("I", kind)
        giver.field("Q", offset)
    # most fields are in the tokenizer's lists; those of counts and tensors are to be met as often
    chosen = giver.fields[:2] + giver.fields[-6 * len(entries) :] if rng.random() < 0.7 else giver.fields
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        place = rng.choice(chosen)
        size = len(giver.pieces[place])
        giver.pieces[place] = (rng.choice(BOUNDARIES) % 2 ** (8 * size)).to_bytes(size, "little")
    head = b"".join(giver.pieces)
    file = head + bytes(-len(head) % alignment) + body
    if rng.random() < 0.08:
        return file[: rng.randrange(len(file))]
    return mutate_bytes(rng, file) if rng.random() < 0.1 else file


def _nested(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    depth = rng.choice((1, 2, 3, 500))
    data = struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 1) + b"\1"
    metadata.append([b"deep", 9, data])


def _huge_list(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    kind, count = rng.choice(list(FORMS)), rng.choice((10, 5000, 100_000, *BOUNDARIES))
    metadata.append([b"huge", 9, struct.pack("<IQ", kind, count) + bytes(min(count, 100_000))])


def _huge_text(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    metadata.append([rng.choice((b"tokenizer.chat_template", b"x" * 65_536, b"general.name")), 8, b"{{" * 50_000])


def _key_twice(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    metadata.append(list(rng.choice(metadata)))


def _key_gone(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    del metadata[rng.randrange(len(metadata))]


def _value(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    entry = rng.choice(metadata)
    kind = rng.choice(list(FORMS))
    value = rng.choice((*BOUNDARIES, 3, 4, 8))
    size = struct.calcsize("<" + FORMS[kind])
    entry[1:] = kind, (value % 2 ** (8 * size)).to_bytes(size, "little")


def _odd_text(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    odd = (b"", b"\0", b"\xff", b"llama", b"qwen3", b"gpt2", "ẞ".encode(), b"../x", b"\x1b[2J", b"x" * 5000)
    rng.choice(metadata)[1:] = 8, rng.choice(odd)


def _list_items(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    lists = [entry for entry in metadata if entry[1] == 9 and not isinstance(entry[2], bytes)]
    if not lists:
        return
    entry = rng.choice(lists)
    kind, items = entry[2][0], list(entry[2][1])
    how = rng.randrange(5)
    if how == 0:
        items = items[: rng.randrange(len(items) + 1)]
    elif how == 1:
        items = items + items[: rng.choice((1, 50))]
    elif how == 2 and kind == 8 and items:
        items[rng.randrange(len(items))] = rng.choice((b"", b" ", b"a b c", b"\xff", b"x" * 9000, items[0]))
    elif how == 3 and kind in FORMS and kind not in (6, 12) and items:
        size = struct.calcsize("<" + FORMS[kind])
        number = (rng.choice(BOUNDARIES) % 2 ** (8 * size)).to_bytes(size, "little")
        items[rng.randrange(len(items))] = struct.unpack("<" + FORMS[kind], number)[0]
    else:
        rng.shuffle(items)
    entry[2] = (kind, items)


def _tensor_twice(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    entries.append(list(rng.choice(entries)))


def _overlap(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    entries[rng.randrange(len(entries))][3] = rng.choice(entries)[3] + rng.choice((0, 32))


def _shape(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    shapes = ([2**32, 2**32], [2**63, 2], [2**40, 2**40, 2**40, 2**40], [1] * 5, [], [0], [2**62, 4], [1, 1, 1, 2**40])
    rng.choice(entries)[1] = list(rng.choice((*shapes, rng.choice(entries)[1])))


def _kind(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    rng.choice(entries)[2] = rng.choice((*range(42), 2**31))


def _tensor_name(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    rng.choice(entries)[0] = rng.choice((b"", b"\xff", b"\0", b"x" * 70_000, b"blk.99.attn_q.weight", b"output.weight"))


def _alignment(rng: Rng, metadata: list[list[Any]], entries: list[list[Any]]) -> None:
    value = rng.choice((0, 1, 3, 8, 31, 64, 2**16, 2**31, 2**32 - 1))
    metadata.append([b"general.alignment", 4, value])


GGUF_CHANGES: tuple[Callable[[Rng, list[list[Any]], list[list[Any]]], None], ...] = (
    _nested, _huge_list, _huge_text, _key_twice, _key_gone, _value, _value, _value, _odd_text, _list_items, _list_items,
    _tensor_twice, _overlap, _shape, _kind, _tensor_name, _alignment,
)  # fmt: skip
