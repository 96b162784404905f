//! Map in AIO's contract: passes every message on, and reports each to a counter and
//! a histogram. What it reports must outlive the instance that reported it.

wit_bindgen::generate!({
    path: "../../../wit/wasm-graph-processor",
    world: "map-impl",
});

use exports::wasm_graph::processor::map::Guest;
use wasm_graph::processor::{
    metrics::{CounterValue, HistogramValue, Label, add_to_counter, record_to_histogram},
    types::{DataModel, Error, ModuleConfiguration},
};

struct Metrics;

impl Guest for Metrics {
    fn process(message: DataModel) -> Result<DataModel, Error> {
        let labels = [Label { key: "kind".into(), value: "any".into() }];
        let counted = add_to_counter("seen", CounterValue::U64(1), Some(&labels));
        let recorded = record_to_histogram("weight", HistogramValue::F64(0.5), None);
        counted.and(recorded).map_err(|error| Error { message: error.to_string() })?;
        Ok(message)
    }

    fn init(_configuration: ModuleConfiguration) -> bool {
        true
    }
}

export!(Metrics);
