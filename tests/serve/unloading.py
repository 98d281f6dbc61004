"""A model is loaded, used and unloaded four times; prints what the process held before, what it took, what was stated.

A program of its own: in a process that runs other tests, what these leave behind is given back too, at any time.
"""

import asyncio
import json

from serving import smollm2

from cutaway.generation import Request
from cutaway.serve import Settings
from cutaway.serve.bridge import Bridge
from cutaway.serve.models import Models
from cutaway.serve.sizes import resident

TIMES = 4


async def scenario() -> list[tuple[int, int, int]]:
    models = Models(Settings(models={"m": smollm2()}, cache_memory=200_000_000))
    bridge = Bridge()
    models.bind(bridge)
    found = []
    for _ in range(TIMES):
        before = resident()
        used = await models.use("m")
        request = Request("Once upon a time " * 40, {"temperature": 0}, max_new_tokens=8)
        stream = await bridge.submit(used.engine, request)
        async for _ in stream:
            pass
        during, stated = resident(), used.sizes.total
        models.release(used)
        await models.unload(used)
        del used, stream
        found.append((before, during - before, stated))
    found.append((resident(), 0, 0))
    bridge.stop()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(scenario())))
