"""Operators in Python, in the contract of Azure IoT Operations: one of each kind.

They know nothing of the host. Each class is what the world that it is named after
exports; a component may have one of each, and `componentize-py` is told which by `-w`.
Payloads are JSON objects; a field is a path such as `properties.mag`.

`Err(Error(…))` refuses that message alone, with its text; anything else that is raised is
a trap. Every call is made on a new object, so that what `init` learns is kept by the class.
"""

import json
import re
from datetime import datetime, timedelta, timezone
from statistics import median

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import logger
from wit_world.imports.hybrid_logical_clock import HybridLogicalClock, Timespec
from wit_world.imports.types import (
    BufferOrBytes,
    BufferOrBytes_Bytes,
    BufferOrBytes_Buffer,
    DataModel,
    DataModel_Message,
    Error,
    Message,
    ModuleConfiguration,
)

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def refuse(text: str) -> Err:
    return Err(Error(text))


def content(place: BufferOrBytes) -> bytes:
    match place:
        case BufferOrBytes_Buffer(buffer):
            with buffer:
                return buffer.read()
        case BufferOrBytes_Bytes(content):
            return content


def message_of(data: DataModel) -> Message:
    if not isinstance(data, DataModel_Message):
        raise refuse("expected a message")
    return data.value


def read(data: DataModel) -> dict:
    """The JSON object that is a message's payload."""
    try:
        value = json.loads(content(message_of(data).payload))
    except ValueError as error:
        raise refuse(f"not JSON: {error}")
    if not isinstance(value, dict):
        raise refuse("not a JSON object")
    return value


def write(data: DataModel, value: dict) -> DataModel:
    message_of(data).payload = BufferOrBytes_Bytes(json.dumps(value, separators=(",", ":")).encode())
    return data


def field(value: dict, path: str, kind: type | tuple[type, ...]):
    """What is at a path, if it is of that kind."""
    found = value
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise refuse(f"`{path}` is not what it should be: {json.dumps(found)}")
    return found


def configure(operator: str, configuration: ModuleConfiguration, defaults: dict) -> dict | None:
    """The parameters, of the types that the defaults have. A default of `None` is a text
    that must be given."""
    given = dict(configuration.properties)
    settings = {}
    for key, default in defaults.items():
        text = given.get(key)
        try:
            settings[key] = default if text is None else (type(default) if default is not None else str)(text)
        except ValueError as error:
            logger.log(logger.Level.ERROR, operator, f"parameter `{key}`: {error}")
            return None
        if settings[key] is None:
            logger.log(logger.Level.ERROR, operator, f"the parameter `{key}` is missing")
            return None
    return settings


class Map(exports.Map):
    """Adds when something happened by the clocks of the place: `local` and `weekday`.

    Parameters: `time` (field with milliseconds since 1970; `time`), `offset` (field with
    minutes east of Greenwich; `tz`).
    """

    def init(self, configuration: ModuleConfiguration) -> bool:
        Map.settings = configure("local-time", configuration, {"time": "time", "offset": "tz"})
        return Map.settings is not None

    def process(self, message: DataModel) -> DataModel:
        value = read(message)
        try:
            since = timedelta(milliseconds=field(value, self.settings["time"], (int, float)))
            zone = timezone(timedelta(minutes=field(value, self.settings["offset"], int)))
            local = (EPOCH + since).astimezone(zone)
        except (ValueError, OverflowError) as error:
            raise refuse(str(error))
        value["local"] = local.isoformat(timespec="seconds")
        value["weekday"] = local.strftime("%A")
        return write(message, value)


class Filter(exports.Filter):
    """Passes what a regular expression is found in.

    Parameters: `field` and `pattern`, which must be given.
    """

    def init(self, configuration: ModuleConfiguration) -> bool:
        settings = configure("pattern", configuration, {"field": None, "pattern": None})
        if settings is None:
            return False
        Filter.field = settings["field"]
        try:
            Filter.pattern = re.compile(settings["pattern"])
        except re.error as error:
            logger.log(logger.Level.ERROR, "pattern", f"`{settings['pattern']}`: {error}")
            return False
        return True

    def process(self, message: DataModel) -> bool:
        return self.pattern.search(field(read(message), self.field, str)) is not None


class Branch(exports.Branch):
    """True at night.

    Parameters: `field` (a local time in ISO's form; `local`), `dusk` and `dawn` (hours; 22, 6).
    """

    def init(self, configuration: ModuleConfiguration) -> bool:
        Branch.settings = configure("at-night", configuration, {"field": "local", "dusk": 22, "dawn": 6})
        return Branch.settings is not None

    def process(self, timestamp: HybridLogicalClock, message: DataModel) -> bool:
        try:
            hour = datetime.fromisoformat(field(read(message), self.settings["field"], str)).hour
        except ValueError as error:
            raise refuse(str(error))
        dusk, dawn = self.settings["dusk"], self.settings["dawn"]
        return dusk <= hour < dawn if dusk < dawn else hour >= dusk or hour < dawn


class Delay(exports.Delay):
    """Holds every message until its day is over: windows from midnight to midnight.

    Parameters: `offset` (minutes east of Greenwich; 0).
    """

    def init(self, configuration: ModuleConfiguration) -> bool:
        Delay.settings = configure("day", configuration, {"offset": 0})
        return Delay.settings is not None

    def process(self, data: DataModel, timestamp: HybridLogicalClock) -> HybridLogicalClock:
        offset, day = 60 * self.settings["offset"], 24 * 60 * 60
        over = ((timestamp.timestamp.secs + offset) // day + 1) * day - offset
        return HybridLogicalClock(Timespec(over, 0), 0, timestamp.node_id)


class Accumulate(exports.Accumulate):
    """How large a field was over a window: `count`, `median` and `greatest`, and all
    `values` in order, which it takes to find the median of more.

    Parameters: `field` (`mag`).
    """

    def init(self, configuration: ModuleConfiguration) -> bool:
        Accumulate.settings = configure("median", configuration, {"field": "mag"})
        return Accumulate.settings is not None

    def process(self, staged: DataModel, message: list[DataModel]) -> DataModel:
        is_first = content(message_of(staged).payload) == b""
        values = [] if is_first else read(staged)["values"]
        values += [field(read(data), self.settings["field"], (int, float)) for data in message]
        values.sort()
        summary = {"count": len(values), "median": median(values), "greatest": values[-1], "values": values}
        return write(staged, summary)
