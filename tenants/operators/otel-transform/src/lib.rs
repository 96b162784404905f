//! Map: one number of a JSON payload becomes a metric, in the form that an OpenTelemetry
//! endpoint takes, `{"metrics":[{name, type, value, …}],"logs":[]}`. AIO's sample of this
//! name writes `metric_type` where that endpoint asks for `type`, as here.
//!
//! `metricName`, or `metricNamePath`, where it lies in the payload; `metricValuePath`;
//! optionally `metricType` (`f64_gauge`), `metricTimestampPath`, `metricUnits`. Paths
//! have dots. What `otel-enrich` added becomes the metric's attributes.

use std::sync::OnceLock;

use operator_logic::otel::Metric;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;

static METRIC: OnceLock<Metric> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    match Metric::parse(&configuration.properties) {
        Ok(metric) => METRIC.set(metric).is_ok(),
        Err(error) => {
            logger::log(Level::Error, "otel-transform/map", &error);
            false
        }
    }
}

#[map_operator(init = "start")]
fn to_metric(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "expected a message".into() });
    };
    let metric = METRIC.get().expect("the host calls `init` first");
    let payload = metric.make(&message.payload.read());
    message.payload = BufferOrBytes::Bytes(payload.map_err(|error| Error { message: error.to_string() })?);
    message.content_type = Some(BufferOrString::String("application/json".into()));
    Ok(DataModel::Message(message))
}
