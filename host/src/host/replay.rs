//! Dead letters through their dataflows again: each some deliveries of their own, on the
//! tenant's credit, and removed only once these are settled. Beside the sources; knows
//! dataflows as they ran when it began.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    io,
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task};

use crate::{
    batch::{Batch, BatchBuilder},
    dataflow::plan::{Health, Plan},
    dead_letter::{Door, Reason, Record, Replayed, filter::Filter, reader},
    queue::{Queue, SourceDoor},
};

/// How often it looks whether waiting still makes sense.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Letters read ahead, in pieces of one delivery.
const AHEAD_MAX: usize = 2;

/// A running dataflow, and the way into it.
pub(super) struct Lane {
    pub plan: Arc<Plan>,
    pub queue: Arc<Queue>,
    /// Its source ends what it sends: what comes another way would be in none of its
    /// transactions, or be let go with one.
    pub is_transactional: bool,
}

/// A replay that is to be run.
pub struct Replay {
    /// By tenant and dataflow.
    pub(super) lanes: BTreeMap<(String, String), Lane>,
    pub(super) door: Door,
    pub(super) filter: Filter,
    /// The host's node name.
    pub(super) node: String,
}

/// What came of a replay.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Letters whose delivery was settled: they are gone.
    pub settled: u64,
    /// Of these, the ones that were given up again: each is one new letter.
    pub again: u64,
    /// Letters that stay, and why.
    pub refused: Vec<(u64, String)>,
}

/// Letters of one dataflow's source, in order.
struct Piece {
    key: (String, String),
    source: String,
    letters: Vec<Record>,
}

/// Letters that become one delivery.
struct Parcel {
    batch: Batch,
    replayed: Arc<[Replayed]>,
}

impl Replay {
    /// Runs it to its end, or until it is not wanted any more: then what is under way is
    /// still waited for.
    pub async fn run(mut self, is_wanted: impl Fn() -> bool) -> io::Result<Outcome> {
        // Letters that are given up again are newer, and not replayed again.
        let newest = self.door.newest();
        self.filter.id_max = Some(self.filter.id_max.map_or(newest, |id| id.min(newest)));
        let (tx, mut pieces) = mpsc::channel(AHEAD_MAX);
        let (door, filter) = (self.door.clone(), self.filter.clone());
        let reading = task::spawn_blocking(move || read_pieces(&door, &filter, &tx));
        let mut outcome = Outcome::default();
        while is_wanted()
            && let Some(piece) = pieces.recv().await
        {
            self.run_piece(piece, &mut outcome, &is_wanted).await;
        }
        drop(pieces);
        let seen = reading.await.expect("reading does not panic")?;
        let missing = self.filter.ids.iter().filter(|id| is_wanted() && !seen.contains(id));
        outcome.refused.extend(missing.map(|id| (*id, "there is no such dead letter".to_owned())));
        Ok(outcome)
    }

    async fn run_piece(&self, piece: Piece, outcome: &mut Outcome, is_wanted: &impl Fn() -> bool) {
        let Piece { key, source, letters } = piece;
        let (lane, index) = match self.way_in(&key, &source) {
            Ok(way) => way,
            Err(why) => {
                outcome.refused.extend(letters.iter().map(|letter| (letter.id, why.clone())));
                return;
            }
        };
        let ids = letters.iter().map(|letter| letter.id).collect();
        let Some(already) = self.ask(move |door| door.begin_replay(ids)).await else { return };
        let (already, letters): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| already.contains(&letter.id));
        let being = |letter: Record| (letter.id, "it is being replayed already".to_owned());
        outcome.refused.extend(already.into_iter().map(being));
        let (parcels, unfit) = self.pack(lane, letters);
        if !unfit.is_empty() {
            let ids = unfit.iter().map(|(id, _)| *id).collect();
            self.ask(move |door| door.end_replay(ids, false)).await;
            outcome.refused.extend(unfit);
        }
        for parcel in parcels {
            let ids: Vec<_> = parcel.replayed.iter().map(|it| it.id).collect();
            let door = SourceDoor::new(index, lane.queue.clone(), lane.plan.tenant.ledger.clone());
            let ended = deliver(lane, door, parcel, is_wanted).await;
            let (is_settled, given) = (ended.is_ok(), ids.clone());
            let again = self.ask(move |door| door.end_replay(given, is_settled)).await;
            match ended {
                Ok(()) => {
                    outcome.settled += ids.len() as u64;
                    outcome.again += again.unwrap_or_default();
                }
                Err(why) => outcome.refused.extend(ids.into_iter().map(|id| (id, why.clone()))),
            }
        }
    }

    /// The dataflow that letters came from, and its source.
    fn way_in(&self, key: &(String, String), source: &str) -> Result<(&Lane, u32), String> {
        let name = format!("{}/{}", key.0, key.1);
        let lane = self.lanes.get(key).ok_or_else(|| format!("its dataflow `{name}` does not run here"))?;
        if let Some(why) = why_stuck(&lane.plan) {
            return Err(why);
        }
        if lane.is_transactional {
            return Err(format!(
                "`{name}` sends in transactions, and a letter is in none; export it instead"
            ));
        }
        let sources = &lane.plan.sources;
        let index = sources.iter().position(|it| it.name == source);
        match index {
            Some(index) if index < lane.plan.sources_outside() => Ok((lane, index as u32)),
            Some(_) => Err(format!(
                "it was released by the window `{source}`, into which nothing can be put back; export it instead"
            )),
            None => Err(format!("its dataflow `{name}` has no source `{source}` any more")),
        }
    }

    /// Makes deliveries of letters; gives those that cannot be part of one, and why.
    fn pack(&self, lane: &Lane, letters: Vec<Record>) -> (Vec<Parcel>, Vec<(u64, String)>) {
        let bytes_max = Batch::BYTES_MAX.min(lane.plan.tenant.ledger.bytes_max());
        let payload_max = lane.plan.tenant.limits.payload_bytes_max;
        let (mut parcels, mut unfit) = (Vec::new(), Vec::new());
        let mut builder = BatchBuilder::new(&self.node);
        let mut replayed = Vec::new();
        for letter in letters {
            let payload = match payload_of(&letter, payload_max) {
                Ok(payload) => payload,
                Err(why) => {
                    unfit.push((letter.id, why));
                    continue;
                }
            };
            let is_full =
                builder.is_full_for(payload.len()) || builder.bytes_len() + payload.len() > bytes_max;
            if is_full && !builder.is_empty() {
                let full = std::mem::replace(&mut builder, BatchBuilder::new(&self.node));
                let replayed = std::mem::take(&mut replayed);
                parcels.push(Parcel { batch: full.finish(), replayed: replayed.into() });
            }
            letter.push(&payload, &mut builder);
            replayed.push(Replayed { id: letter.id, attempts: letter.attempts });
        }
        if !builder.is_empty() {
            parcels.push(Parcel { batch: builder.finish(), replayed: replayed.into() });
        }
        (parcels, unfit)
    }

    /// Asks the writer, which may take its time. `None` at shutdown.
    async fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&Door) -> Option<A> + Send + 'static,
    ) -> Option<A> {
        let door = self.door.clone();
        task::spawn_blocking(move || question(&door)).await.expect("the writer is asked in one way")
    }
}

/// Hands over one delivery and waits until it is settled.
async fn deliver(
    lane: &Lane,
    mut door: SourceDoor,
    Parcel { batch, replayed }: Parcel,
    is_wanted: &impl Fn() -> bool,
) -> Result<(), String> {
    let bytes = batch.bytes_held();
    let credit = loop {
        tokio::select! {
            credit = poll_fn(|ctx| door.poll_credit(bytes, ctx)) => break credit,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Some(why) = why_stuck(&lane.plan) {
            return Err(why);
        }
        if !is_wanted() {
            return Err("nobody waited for it any more".to_owned());
        }
    };
    let number = door.deliver_again(credit, batch, replayed);
    loop {
        tokio::select! {
            () = poll_fn(|ctx| door.poll_settled_all(ctx)) => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Health::Failed { cause, .. } = lane.plan.health() {
            return Err(format!("its dataflow has failed: {cause}"));
        }
    }
    if door.settled_upto() < number {
        return Err("its dataflow was replaced or removed meanwhile; replay it again".to_owned());
    }
    Ok(())
}

fn why_stuck(plan: &Plan) -> Option<String> {
    match plan.health() {
        Health::Running | Health::Paused { .. } => None,
        Health::Quarantined { .. } => {
            Some(format!("its dataflow is in quarantine: `tidegate resume {}` first", plan.name()))
        }
        Health::Failed { cause, .. } => Some(format!("its dataflow has failed: {cause}")),
        Health::Draining => Some("its dataflow is being replaced or removed; replay it again".to_owned()),
    }
}

/// The payload, if the letter can be a message again.
fn payload_of(letter: &Record, payload_max: u64) -> Result<Vec<u8>, String> {
    match letter.reason {
        Reason::Oversize => {
            return Err("its payload was over policy's `payload`, and only the beginning is kept".to_owned());
        }
        Reason::BadLine => return Err("it was a line of a file that is no message".to_owned()),
        _ => {}
    }
    let payload = letter.payload_bytes().ok_or("its payload on disk cannot be read")?;
    if payload.len() as u64 > payload_max {
        let bytes = payload.len();
        return Err(format!("its payload of {bytes} bytes is over policy's `payload` of {payload_max}"));
    }
    Ok(payload)
}

/// Reads letters in pieces of at most one delivery; gives which of the wanted ids there
/// were.
fn read_pieces(door: &Door, filter: &Filter, pieces: &mpsc::Sender<Piece>) -> io::Result<BTreeSet<u64>> {
    let mut seen = BTreeSet::new();
    let mut open: Option<(Piece, usize)> = None;
    let is_taken = |piece: Piece| match pieces.blocking_send(piece) {
        Ok(()) => ControlFlow::Continue(()),
        // Nobody wants more.
        Err(_) => ControlFlow::Break(()),
    };
    reader::read(door.dir(), filter, |letter| {
        if !filter.ids.is_empty() {
            seen.insert(letter.id);
        }
        let bytes = letter.payload.as_ref().or(letter.payload_base64.as_ref()).map_or(0, String::len);
        let goes_with = |(piece, before): &(Piece, usize)| {
            piece.key.0 == letter.tenant
                && piece.key.1 == letter.dataflow
                && piece.source == letter.source
                && piece.letters.len() < Batch::MESSAGES_MAX
                && before + bytes <= Batch::BYTES_MAX
        };
        if let Some((piece, before)) = open.as_mut().filter(|it| goes_with(it)) {
            piece.letters.push(letter);
            *before += bytes;
            return ControlFlow::Continue(());
        }
        let key = (letter.tenant.clone(), letter.dataflow.clone());
        let piece = Piece { key, source: letter.source.clone(), letters: vec![letter] };
        open.replace((piece, bytes)).map_or(ControlFlow::Continue(()), |(piece, _)| is_taken(piece))
    })?;
    if let Some((piece, _)) = open {
        let _ = is_taken(piece);
    }
    Ok(seen)
}
