"""The job of the bench `kafka` in Bytewax: readings of more than 50 °C, with Fahrenheit added,
from one topic to another, acks=all.

Run as `python -m bytewax.run kafka_job.py:flow` with BROKER, INPUT and OUTPUT set; one worker,
as the host has one shard.
"""

import json
import os

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow

BROKERS = [os.environ["BROKER"]]


def read(message):
    return json.loads(message.value)


def is_hot(reading):
    return reading["temperature"] > 50.0


def convert(reading):
    reading["fahrenheit"] = reading["temperature"] * 1.8 + 32.0
    return KafkaSinkMessage(key=None, value=json.dumps(reading).encode())


flow = Dataflow("job")
# The library waits a second between fetches of one who reads fast, by default.
source = KafkaSource(
    BROKERS, [os.environ["INPUT"]], add_config={"fetch.queue.backoff.ms": "5"}, batch_size=1000
)
stream = op.input("in", flow, source)
stream = op.map("read", stream, read)
stream = op.filter("hot", stream, is_hot)
stream = op.map("convert", stream, convert)
op.output("out", stream, KafkaSink(BROKERS, os.environ["OUTPUT"], add_config={"acks": "all", "linger.ms": "5"}))
