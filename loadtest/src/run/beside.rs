//! What happens beside the quiet tenants, until the phase is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use rand::{SeedableRng as _, rngs::SmallRng};

use super::{load, pause, stage::Stage};
use crate::{
    attack::Attack,
    host::Applied,
    payload::Fill,
    schedule::{Schedule, Shape},
    scorecard::{BesideRecord, rounded},
    site::{attackers, attackers_topic},
};

/// Most messages a second to attackers: with more, the broker and this program would be what
/// quiet tenants wait for.
const RATE_MAX: f64 = 4_000.0;
/// Longer than any phase.
const DAY: Duration = Duration::from_secs(86_400);

/// Sends the attackers their messages, each at the attack's rate.
pub fn attack(
    attack: &Attack,
    count: usize,
    address: &str,
    ends: &AtomicBool,
) -> anyhow::Result<BesideRecord> {
    let mut publisher = load::attacker(address, Arc::default())?;
    let names = attackers(attack, count);
    let topics: Vec<String> = names.iter().map(|name| attackers_topic(name)).collect();
    let mut rng = SmallRng::seed_from_u64(0);
    let properties: Vec<(&str, &str)> =
        attack.properties.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let rate = (f64::from(attack.rate) * count as f64).min(RATE_MAX);
    let mut record = BesideRecord::default();
    let began = Instant::now();
    for due in Schedule::new(Shape::Constant { rate }, DAY, 0) {
        let left = Duration::from_nanos(due).saturating_sub(began.elapsed());
        if !left.is_zero() {
            publisher.flush()?;
            pause(ends, left);
        }
        if ends.load(Ordering::SeqCst) {
            break;
        }
        let attacker = record.sent as usize % count;
        let payload = payload(attack, &names[attacker], record.sent, &mut rng);
        publisher.publish(&topics[attacker], &properties, &payload)?;
        record.sent += 1;
    }
    Ok(record)
}

/// Guilty, if the attack has a trigger.
fn payload(attack: &Attack, tenant: &str, number: u64, rng: &mut SmallRng) -> Vec<u8> {
    let mut payload = Vec::with_capacity(attack.payload_bytes);
    let id = number.to_string();
    match &attack.payload {
        Some(template) => {
            template.fill(&Fill { id: &id, tenant, time: SystemTime::now() }, rng, &mut payload)
        }
        None => {
            let trigger = attack.trigger.as_deref().unwrap_or("message");
            payload.extend_from_slice(format!("{trigger} {id}").as_bytes());
        }
    }
    // Blanks at the end of JSON are JSON still.
    payload.resize(payload.len().max(attack.payload_bytes), b' ');
    payload
}

/// Deploys an attack that happens there, over and over, each time with a component that
/// the host has not seen.
pub fn attack_deploys(
    stage: &mut Stage,
    attack: &Attack,
    count: usize,
    ends: &AtomicBool,
) -> anyhow::Result<BesideRecord> {
    let mut record = BesideRecord::default();
    while !ends.load(Ordering::SeqCst) {
        let began = Instant::now();
        if let Applied::Refused(said) = stage.try_attackers(attack, count, record.times as u32)? {
            record.refused += 1;
            record.said.get_or_insert(said);
        }
        note(&mut record, began);
    }
    Ok(record)
}

/// Tenants that come and go, over and over.
pub fn deploys(stage: &mut Stage, count: usize, ends: &AtomicBool) -> anyhow::Result<BesideRecord> {
    let mut record = BesideRecord::default();
    while !ends.load(Ordering::SeqCst) {
        let began = Instant::now();
        stage.pass(count, record.times as u32)?;
        note(&mut record, began);
    }
    Ok(record)
}

pub fn kills(stage: &mut Stage, every: Duration, ends: &AtomicBool) -> anyhow::Result<BesideRecord> {
    now_and_then(every, ends, || stage.kill_host())
}

pub fn restarts(stage: &mut Stage, every: Duration, ends: &AtomicBool) -> anyhow::Result<BesideRecord> {
    now_and_then(every, ends, || stage.restart_broker())
}

fn now_and_then(
    every: Duration,
    ends: &AtomicBool,
    mut happen: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<BesideRecord> {
    let mut record = BesideRecord::default();
    loop {
        pause(ends, every);
        if ends.load(Ordering::SeqCst) {
            return Ok(record);
        }
        let began = Instant::now();
        happen()?;
        note(&mut record, began);
    }
}

fn note(record: &mut BesideRecord, began: Instant) {
    record.times += 1;
    record.longest_seconds = record.longest_seconds.max(rounded(began.elapsed().as_secs_f64()));
}
