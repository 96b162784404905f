"""What the graph of five languages makes of a week of earthquakes, worked out without it.

Reads the feed; writes the messages as the graph is given them, the events in order, and
then one summary for each day. Other ways are taken than the operators take: vectors for
distances, a string of bits for geohashes, quantiles for medians.
"""

import json
import math
import sys
import time
from itertools import groupby
from statistics import quantiles

feed, given_path, expected_path = sys.argv[1:]
PLACE, KILOMETRES = (21.31, -157.86), 7000


def vector(latitude, longitude):
    latitude, longitude = math.radians(latitude), math.radians(longitude)
    flat = math.cos(latitude)
    return flat * math.cos(longitude), flat * math.sin(longitude), math.sin(latitude)


def kilometres(one, other):
    return 6371.0088 * math.acos(min(1, sum(a * b for a, b in zip(vector(*one), vector(*other)))))


def geohash(latitude, longitude, length):
    half = 5 * length // 2
    east = format(int((longitude + 180) / 360 * 2 ** (5 * length - half)), f"0{5 * length - half}b")
    north = format(int((latitude + 90) / 180 * 2**half), f"0{half}b")
    bits = "".join(a + b for a, b in zip(east, north + " ")).strip()
    letters = "0123456789bcdefghjkmnpqrstuvwxyz"
    return "".join(letters[int(bits[at : at + 5], 2)] for at in range(0, 5 * length, 5))


def event(quake):
    about = quake["properties"]
    longitude, latitude, depth = quake["geometry"]["coordinates"]
    if about["mag"] < 2.5 or about["magType"] not in ("ml", "mb", "mww"):
        return None
    if kilometres(PLACE, (latitude, longitude)) > KILOMETRES:
        return None
    distance, _, town = about["place"].partition(" of ")
    number, _, direction = distance.partition("km ")
    if not town or not number.isdigit() or not direction or set(direction) - set("NSEW"):
        return None
    east = about["tz"]
    local = time.gmtime((about["time"] // 1000) + 60 * east)
    zone = f"{'-' if east < 0 else '+'}{abs(east) // 60:02}:{abs(east) % 60:02}"
    return {
        **{key: about[key] for key in ("time", "tz", "mag", "magType", "place")},
        "id": quake["id"],
        "region": about["place"].rpartition(", ")[2],
        "longitude": longitude,
        "latitude": latitude,
        "depth": depth,
        "geohash": geohash(latitude, longitude, 5),
        "local": time.strftime("%Y-%m-%dT%H:%M:%S", local) + zone,
        "weekday": time.strftime("%A", local),
        "light": "day" if 6 <= local.tm_hour < 22 else "night",
    }


quakes = sorted(map(json.loads, open(feed)), key=lambda quake: quake["properties"]["time"])
events = [event for event in map(event, quakes) if event]
with open(given_path, "w") as given:
    for quake in quakes:
        stamp = f"{quake['properties']['time']:015}:00000:feed"
        print(json.dumps({"payload": quake, "properties": [["__ts", stamp]]}), file=given)
with open(expected_path, "w") as expected:
    for quake in events:
        print(json.dumps({"event": quake}), file=expected)
    for _, day in groupby(events, key=lambda quake: quake["time"] // 86_400_000):
        values = sorted(quake["mag"] for quake in day)
        median = quantiles(values, n=2)[0] if len(values) > 1 else values[0]
        summary = {"count": len(values), "median": median, "greatest": values[-1], "values": values}
        print(json.dumps({"day": summary}), file=expected)
