"""PyPI `pymercure`: its consumer, which sends no token. Arguments: hub URL, topic. Prints what it shows."""

import json
import sys

from pymercure.consumer import Consumer

hub, topic = sys.argv[1:3]


def shown(message):
    print(json.dumps({"type": message.event_type, "id": message.message_id, "data": message.data}), flush=True)


consumer = Consumer(hub, [topic], shown)
consumer.start_consumption()
print(json.dumps({"open": True}), flush=True)
