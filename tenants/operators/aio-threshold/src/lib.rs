//! `threshold` in AIO's contract: same keys, same results.

use operator_logic::Threshold;

operator_aio::branch!(Threshold, Threshold::is_reached);
