//! Map: converts one JSON field from unit to unit. Keys: `field`, `from`, `to`; `output`
//! for a field of its own beside it; `decimals` to round.

use operator_logic::{Convert, FieldError};
use tidegate_sdk::{Message, Output, map};

fn convert(convert: &Convert, message: &Message, output: &mut Output) -> Result<(), FieldError> {
    output.emit(message).payload_with(|writer| convert.write(message.payload(), writer))?;
    Ok(())
}

map!(convert, Convert);
