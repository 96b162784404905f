//! Several operators in one component, as AIO's own `temperature` is: the map of
//! `unit-convert`, the filter of `json-filter` and the branch of `threshold`, each with
//! its own keys, in AIO's contract.

use operator_logic::{Convert, Filter, Threshold};

operator_aio::map!(Convert, Convert::write);
operator_aio::filter!(Filter, Filter::passes);
operator_aio::branch!(Threshold, Threshold::is_reached);
