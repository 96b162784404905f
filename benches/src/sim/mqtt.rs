//! `Mqtt`: far ends that are brokers, with the host's own sessions between them and
//! the dataflow's doors.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::ensure;
use rand::Rng as _;
use tidegate::{
    clock::Instant,
    connector::{
        client_id,
        mqtt::{InflightMax, Oversize, Settings, SinkSession, SourceOptions, SourceSession},
        stop::{Farewell, Stop},
    },
    dataflow::shard::Removed,
    dead_letter::Reason,
    queue::SourceDoor,
    topic::TopicFilter,
    write::SinkQueue,
};

use super::{
    broker::{Publisher, Taker},
    client::Client,
    ledger::{Ledger, PAYLOAD_BYTES_MAX},
    stage::Stage,
};

/// See the module.
pub(super) struct Mqtt {
    name: String,
    publisher: Publisher,
    source: Option<Client<SourceSession>>,
    stop: Stop,
    oversize: mpsc::Receiver<Oversize>,
    /// Dead letters on their way to the disk.
    burying: VecDeque<(Instant, Oversize)>,
    /// The source was stopped while it held what it had not delivered.
    left_some: bool,
    queue: Arc<SinkQueue>,
    sink: Client<SinkSession>,
    taker: Taker,
}

/// What can happen to a connection and its broker.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Loss {
    /// Only the connection breaks.
    Connection,
    /// The broker is away for a while, and comes back as it was.
    Broker,
    /// It comes back without its sessions.
    Session,
}

impl Mqtt {
    pub fn new(name: &str, messages: usize, queue: Arc<SinkQueue>, stage: &mut Stage) -> Self {
        let settings = settings(client_id::of_sink("host", name, "out"), stage);
        Mqtt {
            name: name.into(),
            publisher: Publisher::new(messages, stage),
            source: None,
            stop: Stop::default(),
            oversize: mpsc::channel().1,
            burying: VecDeque::new(),
            left_some: false,
            sink: Client::new(SinkSession::new(settings, queue.clone())),
            queue,
            taker: Taker::new(stage),
        }
    }

    pub fn open(&mut self, door: SourceDoor, stage: &mut Stage) {
        let (tx, oversize) = mpsc::channel();
        self.stop = Stop::default();
        self.oversize = oversize;
        self.left_some = false;
        let options = SourceOptions {
            filters: vec![TopicFilter::parse("in").expect("a filter")],
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            node: "host".into(),
            identifies: false,
            // Nobody listens any more only when the simulation ends.
            oversize: Box::new(move |oversize| tx.send(oversize).unwrap_or_default()),
            stop: self.stop.clone(),
        };
        let settings = settings(client_id::of_source("host", &self.name, "flow", "in"), stage);
        self.source = Some(Client::new(SourceSession::new(settings, options, door)));
    }

    /// The source is to take nothing more and to end once all is settled.
    pub fn stop(&mut self) {
        self.stop.stop(Farewell::UntilLater);
        if let Some(source) = &mut self.source {
            source.takes_no_more();
            self.left_some = source.session.held_bytes() > 0;
        }
    }

    /// The source has ended, told to or because its dataflow is gone.
    pub fn has_stopped(&self) -> bool {
        self.source.as_ref().is_none_or(Client::is_over)
    }

    /// The dataflow is gone: what is left of the source goes with it.
    pub fn close(&mut self, removed: Removed, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        self.take_oversize(stage);
        if let Some(source) = self.source.take() {
            source.abort(&mut self.publisher);
        }
        let orphans = self.publisher.orphans(ledger);
        if removed == Removed::Drained && !self.left_some && self.burying.is_empty() {
            ensure!(orphans == 0, "drained with {orphans} messages unsettled that no one else has");
        }
        self.publisher.forget_taken(ledger);
        Ok(())
    }

    pub fn left(&mut self, ledger: &Ledger) -> usize {
        self.publisher.left(ledger)
    }

    /// Nothing waits for its answer.
    pub fn is_quiet(&self) -> bool {
        self.sink.session.unanswered() == 0 && self.queue.depth().0 == 0 && self.burying.is_empty()
    }

    /// No write comes any more.
    pub fn close_sink(&mut self) {
        self.queue.close();
    }

    pub fn is_sink_closed(&self) -> bool {
        self.sink.is_over()
    }

    pub fn due(&self, now: Instant) -> Option<Instant> {
        let source = self.source.as_ref().and_then(|source| source.due(&self.publisher, now));
        let sink = self.sink.due(&self.taker, now);
        let bury = self.burying.front().map(|(at, _)| *at);
        [source, sink, bury].into_iter().flatten().min()
    }

    pub fn step(&mut self, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        if let Some(source) = &mut self.source {
            source.step(&mut self.publisher, ledger, stage)?;
        }
        self.sink.step(&mut self.taker, ledger, stage)?;
        self.take_oversize(stage);
        while let Some((at, _)) = self.burying.front()
            && *at <= stage.now
        {
            let Some((_, oversize)) = self.burying.pop_front() else { break };
            let batch = &oversize.message;
            ledger.bury(batch.entries[0].payload.bytes(&batch.arena), Reason::Oversize)?;
            oversize.settle.ack();
        }
        Ok(())
    }

    fn take_oversize(&mut self, stage: &mut Stage) {
        for oversize in self.oversize.try_iter() {
            let at = stage.after(0..500).max(self.burying.back().map_or(stage.now, |(at, _)| *at));
            self.burying.push_back((at, oversize));
        }
    }

    /// Something happens to the source's side.
    pub fn lose_source(
        &mut self,
        loss: Loss,
        away_until: Instant,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        if let Some(source) = &mut self.source {
            source.cut(&mut self.publisher, ledger, stage)?;
        }
        if !matches!(loss, Loss::Connection) {
            self.publisher.go_away(away_until);
        }
        if matches!(loss, Loss::Session) {
            stage.outcome.sessions_lost += 1;
            self.publisher.forget_session();
        }
        Ok(())
    }

    /// Something happens to the sink's side.
    pub fn lose_sink(
        &mut self,
        loss: Loss,
        away_until: Instant,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        self.sink.cut(&mut self.taker, ledger, stage)?;
        if !matches!(loss, Loss::Connection) {
            self.taker.go_away(away_until);
        }
        if matches!(loss, Loss::Session) {
            stage.outcome.sessions_lost += 1;
            self.taker.forget_session(stage);
        }
        Ok(())
    }

    pub fn stall_source(&mut self, until: Instant) {
        self.publisher.stall(until);
    }

    pub fn stall_sink(&mut self, until: Instant) {
        self.taker.stall(until);
    }
}

fn settings(client_id: String, stage: &mut Stage) -> Settings {
    Settings {
        // Short, so that stalls are longer at times.
        keep_alive: Duration::from_secs(10),
        inflight_max: InflightMax::nearest(stage.rng.random_range(64..200)),
        seed: stage.rng.random(),
        ..Settings::new(client_id)
    }
}
