//! What sensors of temperature and humidity report, and what a window knows of them:
//! the payloads of `temperature`, `humidity`, `collection` and `enrichment`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a payload cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ClimateError {
    #[error("payload is no reading: {0}")]
    Json(#[from] serde_json::Error),
    #[error("payload has no `{0}`")]
    Absent(&'static str),
    #[error("unit `{0}` is not known: F or C")]
    Unit(String),
    #[error("`{name}`: expected a number, found `{text}`")]
    Bound { name: &'static str, text: String },
}

/// A temperature: a reading, then the numbers of a window. In °C once it has been
/// through the map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Temperature {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(flatten)]
    pub numbers: Numbers,
    pub unit: String,
    pub overtemp: bool,
}

/// A relative humidity in percent: a reading, then the numbers of a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Humidity {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// What is known of the values of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbers {
    pub count: u64,
    pub max: f64,
    pub min: f64,
    pub average: f64,
    pub last: f64,
}

impl Numbers {
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        if self.count == 1 {
            (self.max, self.min) = (value, value);
        }
        self.max = self.max.max(value);
        self.min = self.min.min(value);
        self.average += (value - self.average) / self.count as f64;
        self.last = value;
    }
}

/// `{"temperature":{…}}`
#[derive(Debug, Serialize, Deserialize)]
struct TemperaturePayload {
    temperature: Temperature,
}

/// `{"humidity":{…}}`
#[derive(Debug, Serialize, Deserialize)]
struct HumidityPayload {
    humidity: Humidity,
}

/// Whether the reading is a temperature: a member `temperature` in an object.
pub fn is_temperature(payload: &[u8]) -> Result<bool, ClimateError> {
    Ok(serde_json::from_slice::<Value>(payload)?.get("temperature").is_some())
}

/// A reading in °F (or already in °C) as one in °C.
pub fn to_celsius(payload: &[u8]) -> Result<Vec<u8>, ClimateError> {
    let mut reading: TemperaturePayload = serde_json::from_slice(payload)?;
    let temperature = &mut reading.temperature;
    let value = temperature.value.ok_or(ClimateError::Absent("temperature.value"))?;
    match temperature.unit.as_str() {
        "F" => {
            temperature.value = Some((value - 32.0) * 5.0 / 9.0);
            temperature.unit = "C".into();
        }
        "C" => {}
        unit => return Err(ClimateError::Unit(unit.into())),
    }
    Ok(serde_json::to_vec(&reading)?)
}

/// Temperatures that are believed, in °C, both ends included: the parameters
/// `temperature_lower_bound` and `temperature_upper_bound`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    lower: f64,
    upper: f64,
}

impl Bounds {
    /// Without a parameter the bound is -40 (where the scales meet) or 3422 (tungsten melts).
    pub fn parse(lower: Option<&str>, upper: Option<&str>) -> Result<Self, ClimateError> {
        let bound = |name, text: Option<&str>, absent| match text {
            None => Ok(absent),
            Some(text) => {
                text.trim().parse().map_err(|_| ClimateError::Bound { name, text: text.to_owned() })
            }
        };
        Ok(Bounds {
            lower: bound("temperature_lower_bound", lower, -40.0)?,
            upper: bound("temperature_upper_bound", upper, 3422.0)?,
        })
    }

    pub fn hold(&self, payload: &[u8]) -> Result<bool, ClimateError> {
        let reading: TemperaturePayload = serde_json::from_slice(payload)?;
        let value = reading.temperature.value.ok_or(ClimateError::Absent("temperature.value"))?;
        Ok(self.lower <= value && value <= self.upper)
    }
}

/// What a window knows of temperatures: empty, or `{"temperature":{…}}` without a value.
#[derive(Debug, Default)]
pub struct TemperatureWindow(Temperature);

impl TemperatureWindow {
    pub fn staged(payload: &[u8]) -> Result<Self, ClimateError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(serde_json::from_slice::<TemperaturePayload>(payload)?.temperature))
    }

    pub fn add(&mut self, payload: &[u8]) -> Result<(), ClimateError> {
        let reading = serde_json::from_slice::<TemperaturePayload>(payload)?.temperature;
        self.0.numbers.add(reading.value.ok_or(ClimateError::Absent("temperature.value"))?);
        self.0.unit = reading.unit;
        self.0.overtemp |= reading.overtemp;
        Ok(())
    }

    pub fn payload(self) -> Result<Vec<u8>, ClimateError> {
        Ok(serde_json::to_vec(&TemperaturePayload { temperature: self.0 })?)
    }
}

/// What a window knows of humidities: empty, or `{"humidity":{…}}` without a value.
#[derive(Debug, Default)]
pub struct HumidityWindow(Humidity);

impl HumidityWindow {
    pub fn staged(payload: &[u8]) -> Result<Self, ClimateError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(serde_json::from_slice::<HumidityPayload>(payload)?.humidity))
    }

    pub fn add(&mut self, payload: &[u8]) -> Result<(), ClimateError> {
        let reading = serde_json::from_slice::<HumidityPayload>(payload)?.humidity;
        self.0.numbers.add(reading.value.ok_or(ClimateError::Absent("humidity.value"))?);
        Ok(())
    }

    pub fn payload(self) -> Result<Vec<u8>, ClimateError> {
        Ok(serde_json::to_vec(&HumidityPayload { humidity: self.0 })?)
    }
}

/// What the branches of a window found, side by side:
/// `{"temperature":[…],"humidity":[…],"object":[…]}`, each only if there is any.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Collection {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub temperature: Vec<Temperature>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub humidity: Vec<Humidity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub object: Vec<Value>,
}

/// What one branch found.
#[derive(Deserialize)]
struct Found {
    temperature: Option<Temperature>,
    humidity: Option<Humidity>,
    #[serde(default)]
    object: Vec<Value>,
}

impl Collection {
    pub fn staged(payload: &[u8]) -> Result<Self, ClimateError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_slice(payload)?)
    }

    pub fn add(&mut self, payload: &[u8]) -> Result<(), ClimateError> {
        let Found { temperature, humidity, object } = serde_json::from_slice(payload)?;
        self.temperature.extend(temperature);
        self.humidity.extend(humidity);
        self.object.extend(object);
        Ok(())
    }

    /// Marks temperatures whose greatest is above `threshold`, in °C.
    pub fn mark_overtemp(&mut self, threshold: f64) {
        for temperature in &mut self.temperature {
            temperature.overtemp |= temperature.numbers.max > threshold;
        }
    }

    pub fn payload(&self) -> Result<Vec<u8>, ClimateError> {
        Ok(serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests;
