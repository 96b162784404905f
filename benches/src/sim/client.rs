//! `Client`: drives one of the host's MQTT sessions over pipes to a simulated
//! broker, as the host's connection drives it over a socket: poll only when woken,
//! when bytes came or when its deadline has come, so that a wake-up that is missing
//! is missed.

use std::{io, task::Context};

use bytes::BytesMut;
use rand::Rng as _;
use tidegate::{
    clock::Instant,
    connector::mqtt::{Session, SessionError},
};

use super::{alarm::Alarm, ledger::Ledger, pipe::Pipe, stage::Stage};

/// The far end of a client's connection.
pub(super) trait Broker {
    /// Whether somebody answers at its port.
    fn is_up(&self, now: Instant) -> bool;
    fn connected(&mut self);
    /// The connection is gone; the client had taken as many messages on it.
    fn disconnected(&mut self, taken: usize);
    /// Whether it reads what came.
    fn reads(&self, now: Instant) -> bool;
    fn received(&mut self, bytes: &[u8], ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()>;
    /// Puts all that is due into `outgoing`.
    fn poll(&mut self, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()>;
    fn outgoing(&mut self) -> &mut BytesMut;
    /// When there is something to do, though nothing comes.
    fn deadline(&self, now: Instant) -> Option<Instant>;
}

/// See the module.
pub(super) struct Client<S> {
    pub session: S,
    wire: Option<Wire>,
    alarm: Alarm,
    /// The session has finished and its last bytes are through, or lost.
    is_over: bool,
}

struct Wire {
    up: Pipe,
    down: Pipe,
    /// What the session had taken before, and from when on it takes nothing.
    taken_before: u64,
    taken_upto: Option<u64>,
}

/// Turns of a session in a row at one instant. As in the host, the rest comes at
/// once, but not before others had their turn.
const TURNS_MAX: usize = 16;

impl<S: Session> Client<S> {
    pub fn new(session: S) -> Self {
        Client { session, wire: None, alarm: Alarm::new(), is_over: false }
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// What comes from now on counts as not taken.
    pub fn takes_no_more(&mut self) {
        let taken = self.session.status().messages_in.get();
        if let Some(wire) = &mut self.wire {
            wire.taken_upto.get_or_insert(taken);
        }
    }

    /// When to step again.
    pub fn due(&self, broker: &impl Broker, now: Instant) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let finished = self.session.is_finished();
        // One that has finished is not polled any more, and may still be woken.
        if self.alarm.rings() && !finished {
            return Some(now);
        }
        let deadline = if finished { None } else { self.session.deadline() };
        let Some(wire) = &self.wire else { return deadline };
        let up = if broker.reads(now) { wire.up.next_at() } else { None };
        let down = if self.session.wants_read() && !finished { wire.down.next_at() } else { None };
        [deadline, broker.deadline(now), up, down].into_iter().flatten().min()
    }

    pub fn step(
        &mut self,
        broker: &mut impl Broker,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        if self.due(broker, stage.now).is_none_or(|due| due > stage.now) {
            return Ok(());
        }
        if self.wire.is_none() {
            self.dial(broker, stage);
        }
        if self.wire.is_some() {
            self.serve(broker, ledger, stage)?;
            match self.drive(stage) {
                Ok(()) => self.leave_if_finished(broker, stage),
                Err(error) => self.lose(broker, &error, stage)?,
            }
        }
        Ok(())
    }

    /// Without a connection there is only the door to look at, until it is time.
    fn dial(&mut self, broker: &mut impl Broker, stage: &mut Stage) {
        self.poll(stage.now).expect("a session without a connection has nobody to fail it");
        if self.session.is_finished() {
            self.is_over = true;
        } else if self.session.wants_connection(stage.now) {
            if broker.is_up(stage.now) {
                self.session.connected(stage.now).expect("CONNECT can be written");
                broker.connected();
                let taken_before = self.session.status().messages_in.get();
                let (up, down) = (Pipe::default(), Pipe::default());
                self.wire = Some(Wire { up, down, taken_before, taken_upto: None });
                stage.note("connected");
            } else {
                let refused = SessionError::Io(io::ErrorKind::ConnectionRefused.into());
                self.session.disconnected(stage.now, &refused);
            }
        }
    }

    fn poll(&mut self, now: Instant) -> Result<(), SessionError> {
        self.session.poll(&mut Context::from_waker(&self.alarm.reset()), now)
    }

    /// The broker's side of the wire.
    fn serve(
        &mut self,
        broker: &mut impl Broker,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        while broker.reads(stage.now)
            && let Some(bytes) = wire.up.receive(stage.now)
        {
            broker.received(&bytes, ledger, stage)?;
        }
        broker.poll(ledger, stage)?;
        wire.down.send(broker.outgoing(), stage);
        Ok(())
    }

    /// The host's side of the wire: one read and one write a turn.
    fn drive(&mut self, stage: &mut Stage) -> Result<(), SessionError> {
        for _ in 0..TURNS_MAX {
            let Some(wire) = &mut self.wire else { return Ok(()) };
            if self.session.is_finished() {
                wire.up.send(self.session.outgoing(), stage);
                return Ok(());
            }
            let read = if self.session.wants_read() { wire.down.receive(stage.now) } else { None };
            if let Some(bytes) = &read {
                self.session.received(bytes, stage.now)?;
            }
            self.poll(stage.now)?;
            let Some(wire) = &mut self.wire else { return Ok(()) };
            wire.up.send(self.session.outgoing(), stage);
            if read.is_none() {
                return Ok(());
            }
        }
        self.alarm.ring();
        Ok(())
    }

    fn leave_if_finished(&mut self, broker: &mut impl Broker, stage: &mut Stage) {
        let Some(wire) = &self.wire else { return };
        if self.session.is_finished() && self.session.outgoing().is_empty() && wire.up.is_empty() {
            self.hang_up(broker);
            self.is_over = true;
            stage.note("left");
        }
    }

    fn hang_up(&mut self, broker: &mut impl Broker) {
        let Some(wire) = self.wire.take() else { return };
        let taken = wire.taken_upto.unwrap_or(self.session.status().messages_in.get());
        broker.disconnected(taken.saturating_sub(wire.taken_before) as usize);
    }

    /// The connection is lost. A broker that keeps to the protocol is never blamed.
    fn lose(
        &mut self,
        broker: &mut impl Broker,
        error: &SessionError,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        let is_fair = matches!(
            error,
            SessionError::Closed | SessionError::Silent { .. } | SessionError::Refused { .. }
        );
        anyhow::ensure!(is_fair, "the host ends a good connection: {error}");
        stage.note(("lost", error.to_string()));
        stage.outcome.losses += 1;
        self.hang_up(broker);
        if self.session.is_finished() {
            self.is_over = true;
        } else {
            self.session.disconnected(stage.now, error);
            self.alarm.ring();
        }
        Ok(())
    }

    /// Breaks the connection wherever its bytes are. Some more of them may arrive
    /// before; the rest is lost, in the middle of a packet or not.
    pub fn cut(
        &mut self,
        broker: &mut impl Broker,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        let Some(wire) = &mut self.wire else { return Ok(()) };
        for _ in 0..stage.rng.random_range(0..6) {
            let Some(bytes) = wire.up.receive_early() else { break };
            broker.received(&bytes, ledger, stage)?;
        }
        for _ in 0..stage.rng.random_range(0..6) {
            let Some(bytes) = wire.down.receive_early() else { break };
            if self.session.is_finished() {
                break;
            }
            if let Err(error) = self.session.received(&bytes, stage.now) {
                return self.lose(broker, &error, stage);
            }
        }
        self.lose(broker, &SessionError::Closed, stage)
    }

    /// The host drops the session and its socket with it.
    pub fn abort(mut self, broker: &mut impl Broker) {
        self.hang_up(broker);
    }
}
