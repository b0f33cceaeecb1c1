"""PyPI `httpx-sse`: parses one response; the cursor and the reconnecting are the program's, as its documentation shows."""

import time

import httpx
from httpx_sse import connect_sse

from report import RECONNECT_SECONDS, URL, failed, opened, received

last_event_id = ""
with httpx.Client(timeout=httpx.Timeout(10, read=60)) as client:
    while True:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            with connect_sse(client, "GET", URL, headers=headers) as source:
                opened()
                for sse in source.iter_sse():
                    last_event_id = sse.id
                    received(sse.event, sse.id, sse.data)
        except httpx.TransportError as error:
            failed(error)
        time.sleep(RECONNECT_SECONDS)
