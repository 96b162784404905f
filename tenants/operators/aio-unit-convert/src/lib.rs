//! `unit-convert` in AIO's contract: same keys, same results.

use operator_logic::Convert;

operator_aio::map!(Convert, Convert::write);
