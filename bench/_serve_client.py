"""The client of `bench/serve.py`, in a process of its own: the same for every server, and as light as can be.

A line of JSON on its standard input says what to send, `{"port": …, "requests": [[path, body], …], "together": true}`;
a line on its standard output what came: for each request the status, the seconds from the first sending to its own
sending, to its first event and to its last byte, its events, and the last of them. While answers come it only notes
when which bytes came; they are read when all have come.
"""

import json
import selectors
import socket
import sys
import time
from typing import Any

GATHER = 0.001  # seconds
END = b"\r\n0\r\n\r\n"  # of an answer in chunks


class Exchange:
    """One request on its connection, and what came back: at which time how many bytes."""

    def __init__(self, connection: socket.socket, path: str, body: Any) -> None:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self.connection = connection
        self.request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        self.parts: list[tuple[float, bytes]] = []
        self.sent, self.left = 0.0, -1  # bytes to come; -1: not known, it comes in chunks

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.connection.sendall(self.request)

    def receive(self) -> bool:
        """Take what there is; True: that was all."""
        data = self.connection.recv(1 << 18)
        self.parts.append((time.perf_counter(), data))
        if not data:
            return True
        if len(self.parts) == 1:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            if length:
                self.left = int(length) - len(rest)
        elif self.left > 0:
            self.left -= len(data)
        if self.left >= 0:
            return not self.left
        return data.endswith(END) or (len(data) < len(END) and b"".join(p for _, p in self.parts[-8:]).endswith(END))

    def told(self, start: float) -> dict[str, Any]:
        """What came, read."""
        whole = b"".join(data for _, data in self.parts)
        head, _, body = whole.partition(b"\r\n\r\n")
        if b"chunked" in head.lower():
            body = _joined(body)
        found = {"status": int(head.split(None, 2)[1]), "sent": self.sent - start, "end": self.parts[-1][0] - start}
        if b"text/event-stream" not in head:
            return {**found, "first": found["end"], "events": 1, "last": json.loads(body)}
        events = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
        made = [json.loads(event) for event in events if event != b"[DONE]"]
        text = "".join(choice["text"] for one in made for choice in one.get("choices", ()))
        place, first = whole.index(b"data:"), 0.0
        for moment, data in self.parts:
            place -= len(data)
            if place < 0:
                first = moment
                break
        return {**found, "first": first - start, "events": len(made), "last": made[-1], "text": text}


def _joined(body: bytes) -> bytes:
    """A body without the marks between its chunks."""
    made = []
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            break
        made.append(body[:count])
        body = body[count + 2 :]
    return b"".join(made)


def together(port: int, requests: list[tuple[str, Any]]) -> list[Exchange]:
    """All at once, each on a connection of its own, open beforehand."""
    with selectors.DefaultSelector() as selector:
        exchanges = []
        for path, body in requests:
            connection = _connected(port)
            exchanges.append(Exchange(connection, path, body))
            selector.register(connection, selectors.EVENT_READ, exchanges[-1])
        time.sleep(0.05)  # the server has taken them all
        for exchange in exchanges:
            exchange.send()
        left = len(exchanges)
        while left:
            ready = selector.select()
            if len(ready) < left:  # others come in a moment: one waking for all of a step, not one for each
                time.sleep(GATHER)
                ready = selector.select(0)
            for key, _ in ready:
                if key.data.receive():
                    selector.unregister(key.fileobj)
                    left -= 1
        for exchange in exchanges:
            exchange.connection.close()
    return exchanges


def one_by_one(port: int, requests: list[tuple[str, Any]]) -> list[Exchange]:
    """One after the other on one connection."""
    with _connected(port) as connection:
        exchanges = [Exchange(connection, path, body) for path, body in requests]
        for exchange in exchanges:
            exchange.send()
            while not exchange.receive():
                pass
    return exchanges


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


if __name__ == "__main__":
    for line in sys.stdin:
        job = json.loads(line)
        exchanges = (together if job["together"] else one_by_one)(job["port"], job["requests"])
        start = exchanges[0].sent
        print(json.dumps([exchange.told(start) for exchange in exchanges]), flush=True)
