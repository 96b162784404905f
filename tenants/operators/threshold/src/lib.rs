//! Branch: "True" if one JSON field is at a threshold or above it, else "False". Keys:
//! `field`, `threshold`.

use operator_logic::{FieldError, Threshold};
use tidegate_sdk::{Message, Time, branch};

fn is_reached(threshold: &Threshold, message: &Message, _time: &Time) -> Result<bool, FieldError> {
    threshold.is_reached(message.payload())
}

branch!(is_reached, Threshold);
