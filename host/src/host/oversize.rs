//! Messages over a tenant's `payload`: they never enter the path, but are on disk
//! before their source acknowledges them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    task::Wake,
};

use crate::{
    clock::Clock,
    connector::mqtt::Oversize,
    dataflow::plan::Plan,
    dead_letter::{DeadLetter, DeadLetters, Reason},
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
        };
        plan.stats.received.add(1);
        plan.stats.dead.add(1);
        dead_letters.submit(vec![letter], id, &confirms);
    })
}
