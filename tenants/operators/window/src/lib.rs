//! Delay: every message goes to the end of its window of 10 s, which is its message
//! timestamp rounded up; an exact multiple stays. As AIO's sample of this name.

use operator_logic::window;
use wasm_graph_sdk::macros::delay_operator;

const WINDOW: Duration = Duration::from_secs(10);

#[delay_operator]
fn to_the_end_of_its_window(data: DataModel, time: HybridLogicalClock) -> Result<HybridLogicalClock, Error> {
    let instant: Duration = match data {
        DataModel::Message(message) => message.timestamp.timestamp.into(),
        DataModel::Snapshot(snapshot) => snapshot.timestamp.timestamp.into(),
        // Bytes alone have no timestamp of their own.
        DataModel::BufferOrBytes(_) => time.timestamp.into(),
    };
    Ok(HybridLogicalClock {
        timestamp: window::end(instant, WINDOW).into(),
        counter: 0,
        node_id: time.node_id,
    })
}
