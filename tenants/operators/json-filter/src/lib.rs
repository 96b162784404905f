//! Filter: passes messages of which one JSON field compares as configured. Keys:
//! `field`, `op` (`gt`, `ge`, `lt`, `le`, `eq`, `ne`), `value`.

use operator_logic::{FieldError, Filter};
use tidegate_sdk::{Message, filter};

fn passes(filter: &Filter, message: &Message) -> Result<bool, FieldError> {
    filter.passes(message.payload())
}

filter!(passes, Filter);
