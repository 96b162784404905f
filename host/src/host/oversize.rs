//! Messages over a tenant's `payload`, and lines of files that are no messages: they
//! never enter the path, but are on disk before their source acknowledges them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, mpsc},
    task::Wake,
};

use crate::{
    batch::{Batch, BatchBuilder},
    clock::Clock,
    connector::{
        file::{LineError, Problem},
        kafka,
        mqtt::Oversize,
    },
    dataflow::plan::Plan,
    dead_letter::{DeadLetter, DeadLetters, Reason},
    deploy::chain,
    settle::Settle,
    write::Confirms,
};

/// Duties that wait for their dead letter, by number.
#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    confirms: OnceLock<Arc<Confirms>>,
}

#[derive(Default)]
struct State {
    duties: BTreeMap<u64, Settle>,
    safe: Vec<crate::write::Confirmed>,
    next: u64,
}

impl Wake for Waiting {
    /// Dead letters are safe: settles, in order, all that can be.
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock().expect("no panic under this lock");
        if let Some(confirms) = self.confirms.get() {
            confirms.take(&mut state.safe);
        }
        loop {
            let State { duties, safe, .. } = &mut *state;
            let Some(first) = duties.first_entry() else { return };
            let Some(place) = safe.iter().position(|it| it.id == *first.key()) else { return };
            safe.swap_remove(place);
            first.remove().ack();
        }
    }
}

/// What a source calls with each message over the limit.
pub fn bury(
    plan: Arc<Plan>,
    source: String,
    dead_letters: DeadLetters,
    clock: Clock,
) -> Box<dyn FnMut(Oversize) + Send> {
    let waiting = Arc::new(Waiting::default());
    let confirms = Confirms::new(waiting.clone().into());
    waiting.confirms.set(confirms.clone()).expect("set once, here");
    Box::new(move |oversize| {
        let Oversize { message, payload_bytes, settle } = oversize;
        let id = {
            let mut state = waiting.state.lock().expect("no panic under this lock");
            state.next += 1;
            let id = state.next;
            state.duties.insert(id, settle);
            id
        };
        let limit = plan.tenant.limits.payload_bytes_max;
        let letter = DeadLetter {
            tenant: plan.tenant.name.clone(),
            dataflow: plan.dataflow.clone(),
            operation: None,
            source: source.clone(),
            sequence: id,
            reason: Reason::Oversize,
            detail: format!("a payload of {payload_bytes} bytes, and policy's `payload` allows {limit}"),
            fuel: 0,
            component: None,
            message,
            at: clock.wall(),
            replayed: None,
        };
        plan.stats.received.add(1);
        plan.stats.dead.add(1);
        dead_letters.submit(vec![letter], id, &confirms);
    })
}

/// Of a line that is no message, what goes into its dead letter.
const LINE_HEAD_BYTES: usize = 64 << 10;

/// Tells a thread that its dead letter is safe.
struct Told(mpsc::Sender<()>);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        // Whoever waited may have ended.
        let _ = self.0.send(());
    }
}

/// Where a thread that reads for a source puts what never enters the path.
struct Grave {
    plan: Arc<Plan>,
    source: String,
    dead_letters: DeadLetters,
    clock: Clock,
}

impl Grave {
    /// Returns once the dead letter is on disk.
    fn bury(&self, sequence: u64, reason: Reason, detail: String, message: Batch) {
        let letter = DeadLetter {
            tenant: self.plan.tenant.name.clone(),
            dataflow: self.plan.dataflow.clone(),
            operation: None,
            source: self.source.clone(),
            sequence,
            reason,
            detail,
            fuel: 0,
            component: None,
            message,
            at: self.clock.wall(),
            replayed: None,
        };
        self.plan.stats.received.add(1);
        self.plan.stats.dead.add(1);
        let (tx, safe) = mpsc::channel();
        let confirms = Confirms::new(Arc::new(Told(tx)).into());
        self.dead_letters.submit(vec![letter], 0, &confirms);
        // Without this one, a writer that is gone ends the wait.
        drop(confirms);
        let _ = safe.recv();
    }
}

/// What a file source calls, on its own thread, with each line that is no message.
pub fn bury_line(plan: Arc<Plan>, source: String, dead_letters: DeadLetters, clock: Clock) -> Problem {
    let grave = Grave { plan, source, dead_letters, clock };
    Box::new(move |number, error, line| {
        let mut builder = BatchBuilder::new(&grave.source);
        builder.push(b"", None, &line[..line.len().min(LINE_HEAD_BYTES)], []);
        let reason = match error {
            LineError::TooLong { .. } | LineError::PayloadTooLong { .. } => Reason::Oversize,
            _ => Reason::BadLine,
        };
        grave.bury(number, reason, chain(&error), builder.finish());
    })
}

/// What a Kafka source calls, on its own thread, with each record over the limit.
pub fn bury_record(
    plan: Arc<Plan>,
    source: String,
    dead_letters: DeadLetters,
    clock: Clock,
) -> kafka::Oversize {
    let grave = Grave { plan, source, dead_letters, clock };
    Box::new(move |topic, partition, offset, bytes, message| {
        let limit = grave.plan.tenant.limits.payload_bytes_max;
        let detail = format!(
            "a value of {bytes} bytes at offset {offset} of partition {partition} of `{topic}`, and policy's \
             `payload` allows {limit}"
        );
        grave.bury(offset as u64, Reason::Oversize, detail, message);
    })
}
