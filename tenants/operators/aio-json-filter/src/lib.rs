//! `json-filter` in AIO's contract: same keys, same results.

use operator_logic::Filter;

operator_aio::filter!(Filter, Filter::passes);
