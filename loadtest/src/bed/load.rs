//! The load of a bed: messages at a pace, each until it is acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{count::Count, sender::Sender};

/// How often what is due is sent.
const EVERY: Duration = Duration::from_millis(5);
/// What was due while nobody took it is not made up for beyond this: it would come at once.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// A client that sends until it is told to end.
pub struct Load {
    ends: Arc<AtomicBool>,
    client: Option<JoinHandle<anyhow::Result<Sender>>>,
}

impl Load {
    /// Sends so many messages a second to `topic`.
    pub fn start(sender: Sender, topic: &str, count: &Arc<Count>, rate: u64) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let client = {
            let (topic, count, ends) = (topic.to_owned(), count.clone(), ends.clone());
            thread::spawn(move || pace(sender, &topic, &count, rate, &ends))
        };
        Load { ends, client: Some(client) }
    }

    /// An error if the client has given up.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.client.take_if(|client| client.is_finished()) {
            Some(client) => client.join().expect("it does not panic").map(drop),
            None => Ok(()),
        }
    }

    /// Sends nothing more and waits until all is acknowledged.
    pub fn finish(self, within: Duration) -> anyhow::Result<()> {
        self.ends.store(true, Ordering::SeqCst);
        let Some(client) = self.client else { return Ok(()) };
        acknowledged(&mut client.join().expect("it does not panic")?, within)
    }
}

/// Sends messages once more and waits until they are acknowledged.
pub fn again(mut sender: Sender, topic: &str, ids: &[String], within: Duration) -> anyhow::Result<()> {
    for id in ids {
        sender.send(topic, &[], payload(id).as_bytes())?;
    }
    sender.flush()?;
    acknowledged(&mut sender, within)
}

fn acknowledged(sender: &mut Sender, within: Duration) -> anyhow::Result<()> {
    let left = sender.finish(within) + sender.refused();
    ensure!(left == 0, "{left} messages were never acknowledged");
    Ok(())
}

/// Bytes of a payload, as far as its id leaves room.
const PAYLOAD_BYTES: usize = 100;

fn payload(id: &str) -> String {
    format!("{id:<PAYLOAD_BYTES$}")
}

fn pace(
    mut sender: Sender,
    topic: &str,
    count: &Count,
    rate: u64,
    ends: &AtomicBool,
) -> anyhow::Result<Sender> {
    let gap = Duration::from_secs(1) / u32::try_from(rate.max(1))?;
    let mut due = Instant::now();
    while !ends.load(Ordering::SeqCst) {
        due = due.max(Instant::now().checked_sub(BEHIND_MAX).unwrap_or(due));
        let until = Instant::now();
        while due <= until {
            let id = count.send();
            sender.send(topic, &[], payload(&id).as_bytes())?;
            due += gap;
        }
        sender.flush()?;
        thread::sleep(EVERY);
    }
    Ok(sender)
}
