"""Who asks: keys, what each may do, and how much of it.

A key is 256 random bits. On disk there is a salted SHA-256 of it: a slow hash protects words that people choose, which
can be tried one after the other; random bits cannot, and a slow hash would be a way to keep the server busy.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cutaway.errors import ConfigError, DamagedFile, InputError, unknown
from cutaway.files import PLAIN_NAME, parse_json, write_json

SCOPES = ("infer", "metrics")
PREFIX = "sk-cutaway-"
MOST_KEYS = 1000  # all are hashed with their salts for every request: a millisecond
LONGEST = 200  # bytes of a key that are looked at
LARGEST_FILE = 2 << 20
DAY = 86_400.0


@dataclass
class Window:
    """So much in so many seconds, counted from the first use; what is used beyond is told by `left`.

    Attributes:
        most: in one window.
        seconds: its length.
        clock: seconds that only go up.
    """

    most: int
    seconds: float
    clock: Callable[[], float] = time.monotonic
    used: int = 0
    began: float = -math.inf

    def spend(self, amount: int) -> None:
        """Use some."""
        self._turn()
        self.used += amount

    @property
    def left(self) -> int:
        """What may still be used in this window, 0 or more."""
        self._turn()
        return max(0, self.most - self.used)

    @property
    def reset(self) -> float:
        """Seconds until all may be used again."""
        self._turn()
        return max(0.0, self.began + self.seconds - self.clock()) if self.used else 0.0

    def _turn(self) -> None:
        now = self.clock()
        if now >= self.began + self.seconds:
            self.began, self.used = now, 0


@dataclass(frozen=True)
class Key:
    """A key as the file holds it: all but the key itself.

    Attributes:
        name: as people call it.
        id: random, for life; the tenant of what is computed for it.
        salt: hexadecimal.
        hash: SHA-256 of salt and key, hexadecimal.
        scopes: what it may do, of SCOPES.
        models: names it may ask for; none: all.
        requests_per_minute: None: any number.
        tokens_per_minute: read and written; None: any number.
        tokens_per_day: None: any number.
        created: in seconds since 1970.
        expires: after which it is no key any more; None: never.
    """

    name: str
    id: str
    salt: str
    hash: str
    scopes: tuple[str, ...] = ("infer",)
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    created: float = 0.0
    expires: float | None = None

    def __post_init__(self) -> None:
        if not PLAIN_NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} is no name of a key; take letters, digits, '.', '_' and '-'")
        for scope in self.scopes:
            if scope not in SCOPES:
                raise ConfigError(unknown("scope", scope, SCOPES))
        for limit in ("requests_per_minute", "tokens_per_minute", "tokens_per_day"):
            value = getattr(self, limit)
            if value is not None and (type(value) is not int or not 0 < value < 2**53):
                raise ConfigError(f"{limit} of the key {self.name} is {value!r}; give a whole number of at least 1")

    def fits(self, secret: bytes) -> bool:
        """Whether this is the key; takes the same time for any secret of its length."""
        return hmac.compare_digest(_hash(self.salt, secret), self.hash)

    def valid(self, now: float) -> bool:
        """Whether it has not expired at this time."""
        return self.expires is None or now < self.expires


class Meter:
    """What a key has used. It is kept in memory: a server that starts again counts from nothing."""

    requests: Window | None = None
    minute: Window | None = None
    day: Window | None = None

    def __init__(self, key: Key, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.hold_to(key)

    def hold_to(self, key: Key) -> None:
        """Take the limits of a key, as its file has them now; what was used stays used."""

        def window(before: Window | None, most: int | None, seconds: float) -> Window | None:
            if before is None or most is None:
                return None if most is None else Window(most, seconds, self._clock)
            before.most = most
            return before

        self.requests = window(self.requests, key.requests_per_minute, 60.0)
        self.minute = window(self.minute, key.tokens_per_minute, 60.0)
        self.day = window(self.day, key.tokens_per_day, DAY)

    def full(self) -> tuple[str, float] | None:
        """What is used up, as words, and in how many seconds there is some again."""
        for window, words in (
            (self.requests, "requests a minute"),
            (self.minute, "tokens a minute"),
            (self.day, "tokens a day"),
        ):
            if window is not None and window.left == 0:
                return f"{window.most:,} {words}", window.reset
        return None

    def headers(self) -> dict[str, str]:
        """As OpenAI names them; of the two limits of tokens the one of which less is left."""
        made: dict[str, str] = {}
        tokens = [window for window in (self.minute, self.day) if window is not None]
        for what, window in (("requests", self.requests), ("tokens", min(tokens, key=lambda w: w.left, default=None))):
            if window is not None:
                made[f"x-ratelimit-limit-{what}"] = str(window.most)
                made[f"x-ratelimit-remaining-{what}"] = str(window.left)
                made[f"x-ratelimit-reset-{what}"] = f"{math.ceil(window.reset)}s"
        return made


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; "" where no keys are asked for.
        tenant: what is computed for one tenant is never used for another.
        scopes: what it may do, of SCOPES.
        models: names it may ask for; none: all.
        meter: what it has used; None: it may use any amount.
    """

    name: str = ""
    tenant: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    models: frozenset[str] = frozenset()
    meter: Meter | None = field(default=None, compare=False)

    def may_use(self, model: str) -> bool:
        """Whether it may ask for this model."""
        return not self.models or model in self.models

    def spend(self, tokens: int) -> None:
        """Charge tokens, read or written, to its quotas."""
        if self.meter is not None:
            for window in (self.meter.minute, self.meter.day):
                if window is not None:
                    window.spend(tokens)


ANYONE = Caller()


class Keys:
    """The keys of a file, which is read again when it has changed: a key that was removed is none at once.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = ()
        self._meters: dict[str, Meter] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file if it is another than last time.

        Raises:
            InputError: no such file, or others may read it.
            DamagedFile: it is no file of keys. Then there are no keys, and nobody comes in.
        """
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
            if seen == self._seen:
                return
            self._seen, self._keys = None, ()
            self._keys = read_keys(self.path)
            self._seen = seen
        except FileNotFoundError as error:
            self._seen, self._keys = None, ()
            raise InputError(f"there is no file of keys {self.path}; make one with: cutaway keys add") from error
        self._meters = {key.id: self._meters.get(key.id) or Meter(key) for key in self._keys}
        for key in self._keys:
            self._meters[key.id].hold_to(key)

    def find(self, secret: bytes) -> Caller | None:
        """Whose key this is; None: nobody's, or an expired one's.

        Every key is compared, so that the time tells nothing.

        Raises:
            CutawayError: as `refresh`.
        """
        self.refresh()
        if len(secret) > LONGEST:
            return None
        fitting = [key for key in self._keys if key.fits(secret)]
        if not fitting or not fitting[0].valid(time.time()):
            return None
        key = fitting[0]
        return Caller(key.name, key.id, frozenset(key.scopes), frozenset(key.models), self._meters[key.id])


def new_key(name: str, *, days: float | None = None, **options: Any) -> tuple[str, Key]:
    """A key, to be shown once, and what is kept of it.

    Args:
        name: as people call it.
        days: after which it expires; None: never.
        options: fields of `Key`.
    """
    secret, salt, now = PREFIX + secrets.token_urlsafe(32), secrets.token_hex(16), time.time()
    expires = None if days is None else now + days * DAY
    id_, hash_ = f"key-{secrets.token_hex(6)}", _hash(salt, secret.encode())
    return secret, Key(name, id_, salt, hash_, created=round(now), expires=expires, **options)


def add_key(path: Path, name: str, *, days: float | None = None, **options: Any) -> str:
    """Put a new key into a file, which is made if there is none; returns the key, which is nowhere else.

    Raises:
        InputError: the file has a key of this name.
    """
    keys = read_keys(path) if path.exists() else ()
    if any(key.name == name for key in keys):
        raise InputError(f"{path} has a key {name} already; remove it first, or take another name")
    if len(keys) >= MOST_KEYS:
        raise InputError(f"{path} has {MOST_KEYS} keys, which is as many as a server takes")
    secret, key = new_key(name, days=days, **options)
    write_keys(path, (*keys, key))
    return secret


def remove_key(path: Path, name: str) -> None:
    """Take a key out of a file; servers that use it notice at their next request.

    Raises:
        InputError: no such file or key.
    """
    keys = read_keys(path)
    if all(key.name != name for key in keys):
        raise InputError(unknown("key", name, [key.name for key in keys]))
    write_keys(path, tuple(key for key in keys if key.name != name))


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        InputError: no such file, or others than its owner may read or write it.
        DamagedFile: it is no file of keys.
    """
    if not path.exists():
        raise InputError(f"there is no file of keys {path}; make one with: cutaway keys add")
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if os.name != "nt" and (stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (os.geteuid(), 0)):
            raise InputError(f"{path} may be read or written by others; give it to yourself alone: chmod 600 {path}")
        data = file.read(LARGEST_FILE + 1)
    value = parse_json(data[:LARGEST_FILE], str(path))
    listed = value.get("keys") if isinstance(value, dict) and set(value) == {"keys"} else None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise DamagedFile(f"{path} is no file of keys; make one with: cutaway keys add")
    keys = tuple(_read(entry, path) for entry in listed)
    if len({key.name for key in keys}) < len(keys) or len({key.id for key in keys}) < len(keys):
        raise DamagedFile(f"{path} holds two keys of one name or id; remove one")
    return keys


def write_keys(path: Path, keys: tuple[Key, ...]) -> None:
    """Write them so that readers see the old file or the new one; it may be read by its owner alone."""
    write_json(path, {"keys": [asdict(key) for key in keys]})  # written beside, as mode 600, and renamed


def _read(entry: Any, path: Path) -> Key:
    kinds: Mapping[str, tuple[type, ...]] = {
        "name": (str,), "id": (str,), "salt": (str,), "hash": (str,), "scopes": (list,), "models": (list,),
        "created": (int, float), "expires": (int, float, type(None)),
    }  # fmt: skip
    names = {known.name for known in fields(Key)}
    if not isinstance(entry, dict) or not {"name", "id", "salt", "hash"} <= set(entry) <= names:
        raise DamagedFile(f"{path} holds a key with fields that are missing or not known: {json.dumps(entry)[:200]}")
    for name, allowed in kinds.items():
        if name in entry and not isinstance(entry[name], allowed):
            raise DamagedFile(f"{path} holds a key whose {name} is {entry[name]!r:.100}")
    if not (entry["hash"].isascii() and entry["salt"].isascii()):  # else no key could be compared with it
        raise DamagedFile(f"{path} holds a key whose hash or salt is not hexadecimal: {entry['name']!r:.100}")
    lists: dict[str, Any] = {n: tuple(map(str, entry[n])) for n in ("scopes", "models") if n in entry}
    try:
        return Key(**{**entry, **lists})
    except ConfigError as error:
        raise DamagedFile(f"{path}: {error}") from error


def _hash(salt: str, secret: bytes) -> str:
    return hashlib.sha256(salt.encode() + secret).hexdigest()
