"""What the programs of this folder print for the harness: one JSON object per line."""

import json
import sys

URL = sys.argv[1]
RECONNECT_SECONDS = 0.3


def _print(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def opened():
    _print({"open": True})


def failed(error):
    _print({"error": repr(error)})


def received(event_type, event_id, data):
    _print({"type": event_type, "id": event_id, "data": data})
