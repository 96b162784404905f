//! `Intake`: messages that a source has taken and not yet delivered, gathered into
//! batches. Knows neither credit nor settlement.

use std::collections::VecDeque;

use crate::{
    batch::{Batch, BatchBuilder, Entry},
    clock::Clock,
    connector::{
        carried,
        mqtt::{publish::Incoming, source::repeats::Repeats},
    },
    queue::{Sending, Sendings},
};

/// Batches in order; the last may still grow.
#[derive(Debug)]
pub(super) struct Intake {
    node: String,
    /// What messages expire by.
    clock: Clock,
    /// Most bytes of one delivery, unless a single message is larger.
    batch_bytes_max: usize,
    full: VecDeque<(Batch, Sendings)>,
    full_bytes: usize,
    open: Option<BatchBuilder>,
    /// Of the messages of the open batch, or the next.
    sendings: Sendings,
    /// Nobody asks for sendings otherwise.
    identifies: bool,
    /// Number of the delivery that was begun last.
    begun: u64,
    /// How much the last batch held, which the next is prepared for.
    messages_last: usize,
    bytes_last: usize,
}

impl Intake {
    /// With `identifies`, it says of each message how it was sent.
    pub(super) fn new(node: String, batch_bytes_max: usize, identifies: bool, clock: Clock) -> Self {
        Intake {
            node,
            clock,
            batch_bytes_max,
            full: VecDeque::new(),
            full_bytes: 0,
            open: None,
            sendings: Sendings::default(),
            identifies,
            begun: 0,
            messages_last: 0,
            bytes_last: 0,
        }
    }

    /// Adds a message, which is counted among `repeats`, and gives the number that its
    /// delivery will have.
    pub(super) fn push(&mut self, publish: &Incoming<'_>, repeats: &Repeats) -> u64 {
        let bytes = publish.bytes_len();
        if let Some(open) = &self.open {
            let is_full = open.is_full_for(bytes) || open.bytes_len() + bytes > self.batch_bytes_max;
            if is_full && !open.is_empty() {
                self.close(repeats);
            }
        }
        let open = self.open.get_or_insert_with(|| {
            self.begun += 1;
            BatchBuilder::with_capacity(&self.node, self.messages_last, self.bytes_last)
        });
        if self.identifies {
            let again = publish.dup;
            let digest = publish.digest();
            self.sendings.messages.push(Sending { packet_id: publish.packet_id, digest, again });
        }
        open.push(publish.topic.as_bytes(), publish.content_type, publish.payload, publish.user_properties());
        carried::keep(&publish.extras, || self.clock.wall(), open);
        self.begun
    }

    /// What comes from here on comes from a broker that remembers nothing.
    pub(super) fn begin_anew(&mut self, repeats: &Repeats) {
        self.close(repeats);
        self.sendings.anew = true;
    }

    /// Nothing more is added to the open batch.
    pub(super) fn close(&mut self, repeats: &Repeats) {
        let Some(open) = self.open.take() else { return };
        self.messages_last = open.len();
        self.bytes_last = open.bytes_len();
        let batch = open.finish();
        self.full_bytes += batch.bytes_held();
        self.sendings.open = repeats.open();
        self.full.push_back((batch, std::mem::take(&mut self.sendings)));
    }

    /// What the next batch would cost to hold.
    pub(super) fn next_bytes(&self) -> Option<usize> {
        match self.full.front() {
            Some((batch, _)) => Some(batch.bytes_held()),
            None => self.open.as_ref().map(builder_bytes),
        }
    }

    /// The next batch, the number of its delivery, and how it was sent if that was
    /// asked for.
    pub(super) fn take(&mut self, repeats: &Repeats) -> Option<(u64, Batch, Option<Sendings>)> {
        if self.full.is_empty() {
            self.close(repeats);
        }
        let (batch, sendings) = self.full.pop_front()?;
        self.full_bytes -= batch.bytes_held();
        let later = self.full.len() + usize::from(self.open.is_some());
        Some((self.begun - later as u64, batch, self.identifies.then_some(sendings)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.full_bytes + self.open.as_ref().map_or(0, builder_bytes)
    }

    /// Holds a whole delivery: messages of QoS 0 are let go from here on.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= self.batch_bytes_max
    }

    /// Holds so much that nothing more should be read.
    pub(super) fn is_overfull(&self) -> bool {
        self.bytes() >= 2 * self.batch_bytes_max
    }
}

fn builder_bytes(builder: &BatchBuilder) -> usize {
    builder.bytes_len() + builder.len() * size_of::<Entry>()
}
