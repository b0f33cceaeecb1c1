"""PyPI `pymercure`: its synchronous publisher. Arguments: hub URL, token, topic. Prints the ids that were answered."""

import json
import sys

from pymercure.message import Message
from pymercure.publisher.sync import SyncPublisher

hub, token, topic = sys.argv[1:4]
publisher = SyncPublisher(hub, token)


def publish(data, **fields):
    print(json.dumps({"id": publisher.publish(Message([topic], data, **fields))}), flush=True)


publish("1\nline: two — é 🦀")
publish("2", message_id=f"urn:given:{topic}", event_type="kind")
