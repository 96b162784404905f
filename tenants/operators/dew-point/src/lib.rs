//! Provider: the dew point of air from `temperature` in °C and relative `humidity` in
//! %, after Magnus with the coefficients of Sonntag (1990), added as `dewPoint` to a
//! tenth. It logs through AIO's interface, as providers may.
//!
//! Air within `warnWithin` degrees (default 2.5) of its dew point is marked `condensing`.

use std::cell::Cell;

use serde_json::Value;

wit_bindgen::generate!({
    path: ["../../../wit/wasm-graph-processor", "../../../wit/map-custom"],
    inline: r#"
        package tidegate:dew-point;

        world component {
            import wasm-graph:processor/logger@1.1.0;
            include %map:custom/custom-provider;
        }
    "#,
    world: "tidegate:dew-point/component",
    generate_all,
});

use exports::map::custom::custom::{DataModel, Error, Guest, ModuleConfiguration};
use wasm_graph::processor::logger::{Level, log};

const B: f64 = 17.62;
const C: f64 = 243.12;
const WARN_WITHIN_DEFAULT: f64 = 2.5;

thread_local! {
    static WARN_WITHIN: Cell<f64> = const { Cell::new(WARN_WITHIN_DEFAULT) };
}

struct Provider;

impl Guest for Provider {
    fn process(DataModel { payload }: DataModel) -> Result<DataModel, Error> {
        let refuse = |text: String| Error::InvalidArgument(text);
        let mut value: Value = serde_json::from_slice(&payload).map_err(|error| refuse(error.to_string()))?;
        let Some(object) = value.as_object_mut() else { return Err(refuse("no JSON object".into())) };
        let number = |field: &str| {
            object.get(field).and_then(Value::as_f64).ok_or_else(|| refuse(format!("no number `{field}`")))
        };
        let (temperature, humidity) = (number("temperature")?, number("humidity")?);
        if !(0.0 < humidity && humidity <= 100.0) {
            return Err(refuse(format!("humidity of {humidity} %")));
        }
        let gamma = (humidity / 100.0).ln() + B * temperature / (C + temperature);
        let dew_point = C * gamma / (B - gamma);
        object.insert("dewPoint".into(), ((dew_point * 10.0).round() / 10.0).into());
        if temperature - dew_point < WARN_WITHIN.get() {
            log(Level::Warn, "dew-point", "air near its dew point");
            object.insert("condensing".into(), true.into());
        }
        Ok(DataModel { payload: value.to_string().into_bytes() })
    }

    fn init(ModuleConfiguration { properties }: ModuleConfiguration) -> bool {
        let Some((_, text)) = properties.iter().find(|(key, _)| key == "warnWithin") else {
            WARN_WITHIN.set(WARN_WITHIN_DEFAULT);
            return true;
        };
        let within = text.parse::<f64>().ok().filter(|within| within.is_finite());
        within.inspect(|within| WARN_WITHIN.set(*within)).is_some()
    }
}

export!(Provider);
