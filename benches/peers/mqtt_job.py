"""The job of the bench `mqtt` in Pathway: readings of more than 50 °C, with Fahrenheit added, from
one topic to another, all QoS 1.

Run with the broker's HOST:PORT and the two topics. It commits every 50 ms: each commit is a round of its dataflow,
so that latency is about half of that, and less often would only add to it.
"""

import logging
import sys

import pathway as pw

# It would write a line for each acknowledgement.
logging.getLogger().setLevel(logging.ERROR)
logging.disable(logging.WARNING)

BROKER, INPUT, OUTPUT = sys.argv[1:]


class Reading(pw.Schema):
    msg_id: int
    temperature: float


def uri(client_id):
    return f"mqtt://{BROKER}/?client_id={client_id}"


readings = pw.io.mqtt.read(
    uri("pathway-in"), INPUT, qos=1, schema=Reading, format="json", autocommit_duration_ms=50
)
hot = readings.filter(readings.temperature > 50.0)
results = hot.select(hot.msg_id, hot.temperature, fahrenheit=hot.temperature * 1.8 + 32.0)
pw.io.mqtt.write(results, uri("pathway-out"), OUTPUT, qos=1, format="json")
pw.run(monitoring_level=pw.MonitoringLevel.NONE)
