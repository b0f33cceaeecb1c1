"""PyPI `aiohttp-sse-client`: comes back by itself after a clean end. A broken connection it raises to the program, which makes a new client
with the cursor: reusing the old one would put the half of an event that it holds before the next."""

import asyncio
from datetime import timedelta

import aiohttp
from aiohttp_sse_client.client import EventSource

from report import RECONNECT_SECONDS, URL, failed, opened, received


async def main():
    last_event_id = None
    while True:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            async with EventSource(
                URL,
                headers=headers,
                on_open=opened,
                reconnection_time=timedelta(seconds=RECONNECT_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None, sock_read=60),
            ) as source:
                async for event in source:
                    last_event_id = event.last_event_id
                    received(event.type or "message", event.last_event_id, event.data)
        except (aiohttp.ClientError, ConnectionError) as error:
            failed(error)
        await asyncio.sleep(RECONNECT_SECONDS)


asyncio.run(main())
