"""PyPI `sseclient-py`: parses one response; the cursor and the reconnecting are the program's."""

import time

import requests
import sseclient

from report import RECONNECT_SECONDS, URL, failed, opened, received

last_event_id = None
while True:
    headers = {"Accept": "text/event-stream"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    try:
        with requests.get(URL, headers=headers, stream=True, timeout=(10, 60)) as response:
            response.raise_for_status()
            opened()
            for event in sseclient.SSEClient(response).events():
                last_event_id = event.id or last_event_id
                received(event.event, event.id, event.data)
    except requests.RequestException as error:
        failed(error)
    time.sleep(RECONNECT_SECONDS)
