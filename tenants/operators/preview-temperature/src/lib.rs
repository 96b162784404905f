//! Temperatures in the contract of AIO's preview, as teams wrote operators before there
//! was `wasm-graph:processor`: what `temperature` and `window` do, in one component, and
//! nothing returns an error.
//!
//! * map: °F becomes °C. What is no reading ends the call: the contract has no other way
//!   to refuse a message.
//! * filter: passes readings from `temperature_lower_bound` to `temperature_upper_bound`,
//!   in °C; what is no reading is logged and does not pass.
//! * branch: `"True"` for readings with `temperature`, `"False"` for all else.
//! * delay: to the end of a window of 10 s.
//! * accumulate: count, greatest, least, average and last of a window.

wit_bindgen::generate!({
    inline: "
        package tidegate:preview-temperature;
        world temperatures {
            include tinykube-graph:processor/map-impl@1.0.0;
            include tinykube-graph:processor/filter-impl@1.0.0;
            include tinykube-graph:processor/branch-impl@1.0.0;
            include tinykube-graph:processor/accumulate-impl@1.0.0;
            include tinykube-graph:processor/delay-impl@1.0.0;
        }
    ",
    path: "../../../wit/tinykube-graph-processor",
    generate_all,
});

use std::{sync::OnceLock, time::Duration};

use exports::tinykube_graph::processor::{accumulate, branch, delay, filter, map};
use operator_logic::{
    climate::{self, Bounds, TemperatureWindow},
    window,
};
use tinykube_graph::processor::{
    hybrid_logical_clock::{HybridLogicalClock, Timespec},
    logger::{Level, log},
    metrics::{CounterValue, add_to_counter},
    types::{BufferOrBytes, DataModel, Message, ModuleConfiguration},
};

struct Temperatures;

static BOUNDS: OnceLock<Bounds> = OnceLock::new();

const WINDOW: Duration = Duration::from_secs(10);

fn message(data: DataModel) -> Message {
    match data {
        DataModel::Message(message) => message,
        DataModel::Snapshot(_) | DataModel::BufferOrBytes(_) => panic!("expected a message"),
    }
}

/// The payload, which leaves the message.
fn take_payload(message: &mut Message) -> Vec<u8> {
    match &mut message.payload {
        BufferOrBytes::Buffer(buffer) => buffer.read(),
        BufferOrBytes::Bytes(bytes) => std::mem::take(bytes),
    }
}

/// Without an error in the contract, this is how an operator says what it lets go.
fn say(operator: &str, error: &climate::ClimateError) {
    log(Level::Warn, operator, &error.to_string());
    // Counting is no reason to lose a message.
    let _ = add_to_counter("unreadable", CounterValue::U64(1), None);
}

impl map::Guest for Temperatures {
    fn process(data: DataModel) -> DataModel {
        let mut message = message(data);
        let celsius = climate::to_celsius(&take_payload(&mut message)).expect("a reading");
        message.payload = BufferOrBytes::Bytes(celsius);
        DataModel::Message(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

impl filter::Guest for Temperatures {
    fn process(data: DataModel) -> bool {
        let bounds = BOUNDS.get().expect("the host calls `init` first");
        bounds.hold(&take_payload(&mut message(data))).unwrap_or_else(|error| {
            say("temperature/filter", &error);
            false
        })
    }

    fn init(configuration: ModuleConfiguration) -> bool {
        let get = |name: &str| {
            configuration.properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        match Bounds::parse(get("temperature_lower_bound"), get("temperature_upper_bound")) {
            Ok(bounds) => BOUNDS.set(bounds).is_ok(),
            Err(error) => {
                log(Level::Error, "temperature/filter", &error.to_string());
                false
            }
        }
    }
}

impl branch::Guest for Temperatures {
    fn process(_time: HybridLogicalClock, data: DataModel) -> bool {
        climate::is_temperature(&take_payload(&mut message(data))).unwrap_or_else(|error| {
            say("temperature/branch", &error);
            false
        })
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

impl delay::Guest for Temperatures {
    fn process(data: DataModel, time: HybridLogicalClock) -> HybridLogicalClock {
        let Timespec { secs, nanos } = match data {
            DataModel::Message(message) => message.timestamp.timestamp,
            DataModel::Snapshot(snapshot) => snapshot.timestamp.timestamp,
            // Bytes alone have no timestamp of their own.
            DataModel::BufferOrBytes(_) => time.timestamp,
        };
        let end = window::end(Duration::new(secs, nanos), WINDOW);
        let timestamp = Timespec { secs: end.as_secs(), nanos: end.subsec_nanos() };
        HybridLogicalClock { timestamp, counter: 0, node_id: time.node_id }
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

impl accumulate::Guest for Temperatures {
    fn process(staged: DataModel, inputs: Vec<DataModel>) -> DataModel {
        let mut output = message(staged);
        let mut window = TemperatureWindow::staged(&take_payload(&mut output)).expect("what it gave before");
        for input in inputs {
            let mut message = message(input);
            match window.add(&take_payload(&mut message)) {
                // The window's message is its last one's, but for the payload.
                Ok(()) => output = message,
                Err(error) => say("temperature/accumulate", &error),
            }
        }
        output.payload = BufferOrBytes::Bytes(window.payload().expect("numbers are JSON"));
        DataModel::Message(output)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

export!(Temperatures);
