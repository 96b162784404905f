//! `Intake`: messages that a source has taken and not yet delivered, gathered into
//! batches. Knows neither credit nor settlement.

use std::collections::VecDeque;

use crate::{
    batch::{Batch, BatchBuilder, Entry},
    connector::mqtt::publish::Incoming,
};

/// Batches in order; the last may still grow.
#[derive(Debug)]
pub(super) struct Intake {
    node: String,
    /// Most bytes of one delivery, unless a single message is larger.
    batch_bytes_max: usize,
    full: VecDeque<Batch>,
    full_bytes: usize,
    open: Option<BatchBuilder>,
    /// Number of the delivery that was begun last.
    begun: u64,
    /// How much the last batch held, which the next is prepared for.
    messages_last: usize,
    bytes_last: usize,
}

impl Intake {
    pub(super) fn new(node: String, batch_bytes_max: usize) -> Self {
        Intake {
            node,
            batch_bytes_max,
            full: VecDeque::new(),
            full_bytes: 0,
            open: None,
            begun: 0,
            messages_last: 0,
            bytes_last: 0,
        }
    }

    /// Adds a message and gives the number that its delivery will have.
    pub(super) fn push(&mut self, publish: &Incoming<'_>) -> u64 {
        let bytes = publish.bytes_len();
        if let Some(open) = &self.open {
            let is_full = open.is_full_for(bytes) || open.bytes_len() + bytes > self.batch_bytes_max;
            if is_full && !open.is_empty() {
                self.close();
            }
        }
        let open = self.open.get_or_insert_with(|| {
            self.begun += 1;
            BatchBuilder::with_capacity(&self.node, self.messages_last, self.bytes_last)
        });
        open.push(publish.topic.as_bytes(), publish.content_type, publish.payload, publish.user_properties());
        self.begun
    }

    /// Nothing more is added to the open batch.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.messages_last = open.len();
        self.bytes_last = open.bytes_len();
        let batch = open.finish();
        self.full_bytes += batch.bytes_held();
        self.full.push_back(batch);
    }

    /// What the next batch would cost to hold.
    pub(super) fn next_bytes(&self) -> Option<usize> {
        match self.full.front() {
            Some(batch) => Some(batch.bytes_held()),
            None => self.open.as_ref().map(builder_bytes),
        }
    }

    /// The next batch and the number of its delivery.
    pub(super) fn take(&mut self) -> Option<(u64, Batch)> {
        if self.full.is_empty() {
            self.close();
        }
        let batch = self.full.pop_front()?;
        self.full_bytes -= batch.bytes_held();
        let later = self.full.len() + usize::from(self.open.is_some());
        Some((self.begun - later as u64, batch))
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
