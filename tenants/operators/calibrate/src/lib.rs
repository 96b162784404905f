//! Provider: what a sensor should have said, by the gain and offset that its last
//! calibration found. It imports nothing, so that it can do nothing else.
//!
//! Settings: `field` (default `temperature`), `gain` (1) and `offset` (0). The result
//! stands beside the measurement as `corrected`, to a thousandth.

use std::cell::RefCell;

use serde_json::Value;

wit_bindgen::generate!({ path: "../../../wit/map-custom", world: "custom-provider" });

use exports::map::custom::custom::{DataModel, Error, Guest, ModuleConfiguration};

struct Calibration {
    field: String,
    gain: f64,
    offset: f64,
}

thread_local! {
    static CALIBRATION: RefCell<Calibration> =
        const { RefCell::new(Calibration { field: String::new(), gain: 1.0, offset: 0.0 }) };
}

struct Provider;

impl Guest for Provider {
    fn process(DataModel { payload }: DataModel) -> Result<DataModel, Error> {
        let refuse = |text: String| Error::InvalidArgument(text);
        let mut value: Value = serde_json::from_slice(&payload).map_err(|error| refuse(error.to_string()))?;
        let Some(object) = value.as_object_mut() else { return Err(refuse("no JSON object".into())) };
        CALIBRATION.with_borrow(|Calibration { field, gain, offset }| {
            let measured = object.get(field).and_then(Value::as_f64);
            let measured = measured.ok_or_else(|| refuse(format!("no number `{field}`")))?;
            let corrected = ((gain * measured + offset) * 1e3).round() / 1e3;
            object.insert("corrected".into(), corrected.into());
            Ok(())
        })?;
        Ok(DataModel { payload: value.to_string().into_bytes() })
    }

    fn init(ModuleConfiguration { properties }: ModuleConfiguration) -> bool {
        let mut calibration = Calibration { field: "temperature".into(), gain: 1.0, offset: 0.0 };
        for (key, value) in properties {
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            match (key.as_str(), number) {
                ("field", _) => calibration.field = value,
                ("gain", Some(gain)) => calibration.gain = gain,
                ("offset", Some(offset)) => calibration.offset = offset,
                ("gain" | "offset", None) => return false,
                _ => {}
            }
        }
        CALIBRATION.set(calibration);
        true
    }
}

export!(Provider);
