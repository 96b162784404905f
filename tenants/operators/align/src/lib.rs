//! Delay: every message waits for the end of its window, so that windows of `seconds`
//! follow each other without a gap. A message at the very end of a window belongs to
//! it. Key: `seconds`, 10 if it is not set.

use serde::Deserialize;
use tidegate_sdk::{Message, Time, delay};

#[derive(Deserialize)]
struct Config {
    #[serde(default = "ten")]
    seconds: std::num::NonZeroU64,
}

fn ten() -> std::num::NonZeroU64 {
    std::num::NonZeroU64::new(10).expect("it is not 0")
}

fn align<'m>(config: &Config, _message: &Message<'m>, time: &Time<'m>) -> Result<Time<'m>, &'static str> {
    let begun = u64::from(time.nanos > 0);
    let seconds =
        time.seconds.checked_add(begun).and_then(|at| at.checked_next_multiple_of(config.seconds.get()));
    let seconds = seconds.ok_or("no window ends after this time")?;
    Ok(Time { seconds, nanos: 0, counter: 0, node: time.node })
}

delay!(align, Config);
