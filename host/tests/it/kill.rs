//! kill -9 of the host while messages run through a real mosquitto: none is lost by
//! id, as an outside client and the dead letters say; and the same count reports loss
//! when settlement is broken on purpose.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    crowd::{self, Happened},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, publish_all},
    process::Host,
};

/// What came of a run.
struct Outcome {
    answered: BTreeSet<u64>,
    messages: usize,
    happened: Happened,
}

/// Publishes `count` messages and kills the host `kills` times meanwhile.
fn run(count: u64, kills: usize, plant: &str, seed: u64) -> Option<Outcome> {
    let broker = Mosquitto::start(&["max_inflight_messages 0"])?;
    let site = crowd::site(&broker.address());
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let mut host = Host::up_with(site.path(), plant);
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, crowd::messages(0..count)));
    let mut rng = StdRng::seed_from_u64(seed);
    let mut happened = Happened::default();
    for kill in 0..kills {
        // At some moment of this part of the run, wherever that finds the host.
        let part = count as usize / (kills + 1);
        let at = kill * part + rng.random_range(1..part);
        eventually("results come", || subscriber.len() >= at || publisher.is_finished());
        happened.add(&host.status());
        host.kill();
        crowd::change_component(&site, rng.random_range(0..crowd::TENANTS), kill as u8);
        host = Host::up_with(site.path(), plant);
    }
    publisher.join().expect("publishing does not fail");
    if plant.is_empty() {
        crowd::wait_until_answered(&subscriber, &host, count);
    } else {
        // What is lost never comes: wait until nothing has come for a while.
        let mut last = (0, std::time::Instant::now());
        eventually("nothing more comes", || {
            if subscriber.len() != last.0 {
                last = (subscriber.len(), std::time::Instant::now());
            }
            last.1.elapsed() > Duration::from_secs(3)
        });
    }
    happened.add(&host.status());
    let answered = crowd::answered(&subscriber, &host);
    host.stop();
    Some(Outcome { answered, messages: subscriber.len(), happened })
}

#[test]
fn mqtt_nothing_is_lost_when_the_host_is_killed_ten_times() {
    let Some(Outcome { answered, messages, happened }) = run(100_000, 10, "", 5) else { return };
    assert!(answered.iter().copied().eq(0..100_000), "lost");
    happened.check();
    let delivered = answered.iter().filter(|number| !crowd::is_given_up(**number)).count();
    eprintln!("{} duplicates after ten kills", messages - delivered);
}

#[test]
fn mqtt_the_same_count_reports_loss_when_settlement_is_broken() {
    let Some(Outcome { answered, happened, .. }) = run(40_000, 4, "early-ack", 6) else { return };
    assert!(answered.len() < 40_000, "an early ack lost nothing: the count cannot fail");
    happened.check();
}
