#!/usr/bin/env python3
"""Quiet pipelines alone and beside one that spins, in one Bytewax process.

The scenario of the bench `scorecard` for another engine: eight quiet tenants of 100 messages
a second each, through a JSON filter and a unit conversion, alone and then beside an attacker:
`endless-loop` never returns, `fifty-ms` spins so long on each of 100 messages a second.

A message's time runs from when it was due to when its sink has it. One that has not come when
the run ends counts as late by then: beside what stops everything, the percentiles are no more
than the length of the run.

Two shapes are measured: all pipelines in one dataflow of one worker (the figures on top), and
each pipeline in a dataflow, worker and thread of its own (those under `thread-each`). Prints
one JSON object to stdout; progress goes to stderr.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import traceback
from datetime import datetime, timezone
from importlib import metadata
from typing import Any, Callable, NamedTuple, Optional

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

VICTIMS = 8
# Messages a second, of each victim and of the attacker.
RATE = 100
# Seconds of messages that are sent but not measured; the attacker begins half-way.
WARM_UP = 1
# Seconds that messages may still take to arrive after the last was due.
DRAIN = 1
# Seconds that the engine's process may take to import and build.
STARTS_WITHIN = 60
# Seconds of CPU for each message of `fifty-ms`.
SPIN = 0.05

READING = (
    '{"msg_id":10%04d,"sensor":"boiler-room-north-17","temperature":70.5,"unit":"celsius-scale"}'
)
# A message's number on its timetable, and its JSON.
Message = tuple[int, str]


class Shared(NamedTuple):
    """What the driver reads of the engine's process, even after it was killed."""

    # When the timetables start, in seconds of the monotonic clock; 0: not known yet.
    start: Any
    # When each message arrived, by tenant and number, on the same clock; 0: it did not.
    arrivals: Any
    # How many messages the attacker has begun.
    begun: Any


def is_warm(message: Message) -> bool:
    return json.loads(message[1])["temperature"] > 50


def to_fahrenheit(message: Message) -> Message:
    number, text = message
    reading = json.loads(text)
    reading["fahrenheit"] = reading["temperature"] * 9 / 5 + 32
    return number, json.dumps(reading)


def endless_loop(message: Message) -> Message:
    while True:
        pass


def fifty_ms(message: Message) -> Message:
    until = time.thread_time() + SPIN
    while time.thread_time() < until:
        pass
    return message


ATTACKS = {"endless-loop": endless_loop, "fifty-ms": fifty_ms}


class Timetable(StatelessSourcePartition[Message]):
    """Gives each message once it is due; what is late is given late, and none is left out."""

    def __init__(self, first: float, count: int, most: int):
        """`first`: due of the first, in seconds of the monotonic clock; `most`: of a batch."""
        self.first, self.count, self.most = first, count, most
        self.next = 0

    def due(self) -> float:
        return self.first + self.next / RATE

    def next_batch(self) -> list[Message]:
        if self.next == self.count:
            raise StopIteration
        now = time.monotonic()
        batch: list[Message] = []
        while self.next < self.count and self.due() <= now and len(batch) < self.most:
            batch.append((self.next, READING % self.next))
            self.next += 1
        return batch

    def next_awake(self) -> Optional[datetime]:
        # Without it the engine would poll, a millisecond apart.
        wait = self.due() - time.monotonic()
        return datetime.fromtimestamp(time.time() + wait, timezone.utc)


class Source(DynamicSource[Message]):
    def __init__(self, timetable: Timetable):
        self.timetable = timetable

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Timetable:
        # A dataflow has one worker here, which has all of it.
        return self.timetable


class Arrivals(StatelessSinkPartition[Message]):
    """Notes when each message arrived, from place `first` on."""

    def __init__(self, arrivals: Any, first: int):
        self.arrivals, self.first = arrivals, first

    def write_batch(self, items: list[Message]) -> None:
        now = time.monotonic()
        for number, _ in items:
            self.arrivals[self.first + number] = now


class Sink(DynamicSink[Message]):
    def __init__(self, arrivals: Arrivals):
        self.arrivals = arrivals

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Arrivals:
        return self.arrivals


def run(flow: Dataflow) -> None:
    try:
        cli_main(flow, workers_per_process=1)
    except BaseException:
        # One dataflow's end would go unnoticed beside the others.
        traceback.print_exc()
        os._exit(1)


def engine(shared: Shared, count: int, attack: Optional[str], thread_each: bool) -> None:
    """Runs all pipelines, with `count` messages each, in the engine's process."""
    # Should the driver die, this ends the process even while a loop holds the interpreter.
    signal.setitimer(signal.ITIMER_REAL, count / RATE + DRAIN + 5)
    start = time.monotonic() + 0.5
    flows = [Dataflow("all")]

    def add(tenant: int, timetable: Timetable, steps: Callable[[str, Any], Any]) -> None:
        if thread_each and tenant > 0:
            flows.append(Dataflow(f"flow{tenant}"))
        name = f"tenant{tenant}"
        stream = steps(name, op.input(f"{name}-in", flows[-1], Source(timetable)))
        op.output(f"{name}-out", stream, Sink(Arrivals(shared.arrivals, tenant * count)))

    def quiet(name: str, stream: Any) -> Any:
        stream = op.filter(f"{name}-filter", stream, is_warm)
        return op.map(f"{name}-convert", stream, to_fahrenheit)

    for victim in range(VICTIMS):
        # What is late comes in one batch: the quickest way to catch up.
        add(victim, Timetable(start + victim / VICTIMS / RATE, count, most=count), quiet)
    if attack is not None:
        spin = ATTACKS[attack]

        def attacker(message: Message) -> Message:
            shared.begun.value += 1
            return spin(message)

        def attacking(name: str, stream: Any) -> Any:
            return op.map(f"{name}-attack", stream, attacker)

        # One a batch, so that the engine can run others after each: batches of all that is
        # late would grow, each taking longer than the one before.
        add(VICTIMS, Timetable(start + WARM_UP / 2, count, most=1), attacking)
    shared.start.value = start
    threads = [threading.Thread(target=run, args=(flow,)) for flow in flows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(seconds: int, attack: Optional[str], thread_each: bool) -> dict[str, Any]:
    """Runs the engine's process once, for so many seconds, and gives the victims' figures."""
    print(f"{attack or 'alone'}{', thread-each' if thread_each else ''}", file=sys.stderr)
    count = (WARM_UP + seconds) * RATE
    context = multiprocessing.get_context("spawn")
    arrivals = context.RawArray("d", (VICTIMS + 1) * count)
    shared = Shared(context.RawValue("d", 0), arrivals, context.RawValue("q", 0))
    process = context.Process(target=engine, args=(shared, count, attack, thread_each))
    process.start()
    try:
        give_up = time.monotonic() + STARTS_WITHIN
        while (start := shared.start.value) == 0:
            if not process.is_alive() or time.monotonic() > give_up:
                raise RuntimeError("the engine's process did not start")
            time.sleep(0.01)
        end = start + count / RATE + DRAIN
        process.join(max(0, end - time.monotonic()))
        if process.exitcode not in (None, 0):
            raise RuntimeError(f"the engine's process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()
    if attack is not None and shared.begun.value == 0:
        raise RuntimeError(f"`{attack}` did not run")
    took, delivered = [], 0
    for victim in range(VICTIMS):
        for number in range(WARM_UP * RATE, count):
            due = start + (victim / VICTIMS + number) / RATE
            arrived = arrivals[victim * count + number]
            delivered += arrived > 0
            took.append(((arrived or end) - due) * 1e3)
    took.sort()
    p50, p99 = (round(took[(len(took) - 1) * part // 100], 3) for part in (50, 99))
    figures = {"p50_ms": p50, "p99_ms": p99, "sent": len(took), "delivered": delivered}
    return figures if attack is None else figures | {"attacker_messages": shared.begun.value}


def alone_and_beside(seconds: int, thread_each: bool) -> dict[str, Any]:
    alone = measure(seconds, None, thread_each)
    beside = {attack: measure(seconds, attack, thread_each) for attack in ATTACKS}
    return {"alone": alone, "beside": beside}


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--seconds", type=int, default=10, help="of each of six runs (default: 10)")
    seconds = parser.parse_args().seconds
    if seconds < 1:
        parser.error("--seconds must be at least 1")
    result = {
        "engine": "bytewax",
        "version": metadata.version("bytewax"),
        "python": platform.python_version(),
        **alone_and_beside(seconds, thread_each=False),
        "thread-each": alone_and_beside(seconds, thread_each=True),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
