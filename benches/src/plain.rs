//! The dataflow of the bench `windows` as one would write it without a host: plain
//! Timely, native operators, files read and written by the same thread. One timestamp a
//! batch, watermarks in band; each operator parses the JSON that it looks at.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    rc::Rc,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use timely::dataflow::{
    InputHandle, ProbeHandle, StreamVec,
    channels::pact::Pipeline,
    operators::{Input as _, Probe as _, generic::Operator as _},
};

/// Messages of one batch, as a host takes them.
const BATCH: usize = 256;
/// Batches of each dataflow before the others have a turn.
const TURN: usize = 4;

/// What passes between operators.
#[derive(Clone)]
enum Item {
    Message(Message),
    /// All before this, in ms, has been seen.
    Watermark(u64),
}

#[derive(Clone)]
struct Message {
    time_ms: u64,
    topic: String,
    payload: Vec<u8>,
}

/// A line of the input, as far as it matters.
#[derive(Deserialize)]
struct Line<'a> {
    topic: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    properties: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize)]
struct OutputLine<'a> {
    topic: &'a str,
    payload: &'a RawValue,
    properties: [(&'static str, String); 1],
}

#[derive(Deserialize)]
struct Reading {
    temperature: f64,
}

#[derive(Clone, Copy, Serialize)]
struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
}

/// What the dataflow does with its messages.
#[derive(Clone, Copy)]
pub struct Job {
    /// The filter passes readings above.
    pub above: f64,
    pub window: Duration,
    pub lateness: Duration,
}

/// Runs `dataflows` of them side by side, each over all of `input`, until the input ends
/// and all that is complete then is written to `output`.
pub fn run(job: Job, dataflows: usize, input: &Path, output: &Path) -> anyhow::Result<()> {
    let sources = (0..dataflows).map(|_| Ok(BufReader::new(File::open(input)?)));
    let mut sources: Vec<_> = sources.collect::<anyhow::Result<_>>()?;
    let output = File::create(output).with_context(|| output.display().to_string())?;
    timely::execute_directly(move |worker| {
        let output = Rc::new(RefCell::new(BufWriter::with_capacity(256 << 10, output)));
        let mut flows: Vec<_> = (0..dataflows)
            .map(|_| {
                let mut input = InputHandle::new();
                let probe = ProbeHandle::new();
                worker.dataflow(|scope| build(scope.input_from(&mut input), job, output.clone(), &probe));
                (input, probe)
            })
            .collect();
        let mut line = String::new();
        while !sources.is_empty() {
            for index in (0..sources.len()).rev() {
                let (input, probe) = &mut flows[index];
                let mut ended = false;
                for _ in 0..TURN {
                    let batch = read(&mut sources[index], job, &mut line)?;
                    ended = batch.is_empty();
                    send(input, batch);
                }
                while probe.less_than(input.time()) {
                    worker.step();
                }
                if ended {
                    sources.remove(index);
                    flows.remove(index);
                }
            }
        }
        output.borrow_mut().flush()?;
        Ok(())
    })
}

fn send(
    input: &mut InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Item>>>,
    mut batch: Vec<Item>,
) {
    input.send_batch(&mut batch);
    input.advance_to(input.time() + 1);
}

/// The next lines, and the watermark behind them.
fn read(source: &mut BufReader<File>, job: Job, line: &mut String) -> anyhow::Result<Vec<Item>> {
    let mut batch = Vec::with_capacity(BATCH + 1);
    let mut latest = 0_u64;
    while batch.len() < BATCH {
        line.clear();
        if source.read_line(line)? == 0 {
            break;
        }
        let Line { topic, payload, properties } = serde_json::from_str(line)?;
        let stamp = properties.iter().find(|(name, _)| *name == "__ts").context("a line without a time")?;
        let time_ms: u64 = stamp.1.split(':').next().context("a time")?.parse()?;
        latest = time_ms.max(latest);
        let (topic, payload) = (topic.to_owned(), payload.get().as_bytes().to_vec());
        batch.push(Item::Message(Message { time_ms, topic, payload }));
    }
    if !batch.is_empty() {
        batch.push(Item::Watermark(latest.saturating_sub(job.lateness.as_millis() as u64)));
    }
    Ok(batch)
}

type Items<'scope> = StreamVec<'scope, u64, Item>;

fn build<'scope>(
    input: Items<'scope>,
    job: Job,
    output: Rc<RefCell<BufWriter<File>>>,
    probe: &ProbeHandle<u64>,
) {
    let filtered = filter(input, job.above);
    let windowed = accumulate(delay(filtered, job.window.as_millis() as u64));
    windowed
        .unary::<timely::container::CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "write", |_, _| {
            move |input, _output| {
                input.for_each(|_, items| {
                    for item in items.drain(..) {
                        if let Item::Message(message) = item {
                            write(&mut output.borrow_mut(), &message);
                        }
                    }
                });
            }
        })
        .probe_with(probe);
}

fn filter(input: Items<'_>, above: f64) -> Items<'_> {
    input.unary(Pipeline, "filter", move |_, _| {
        move |input, output| {
            input.for_each(|capability, items| {
                let passes = |item: &Item| match item {
                    Item::Message(message) => reading(&message.payload) > above,
                    Item::Watermark(_) => true,
                };
                items.retain(passes);
                output.session(&capability).give_container(items);
            });
        }
    })
}

/// Holds messages until the end of their window is before the watermark.
fn delay(input: Items<'_>, window_ms: u64) -> Items<'_> {
    input.unary(Pipeline, "delay", move |_, _| {
        let mut held = BTreeMap::<u64, Vec<Message>>::new();
        move |input, output| {
            input.for_each(|capability, items| {
                let mut session = output.session(&capability);
                for item in items.drain(..) {
                    match item {
                        Item::Message(message) => {
                            let end = message.time_ms.next_multiple_of(window_ms);
                            held.entry(end).or_default().push(Message { time_ms: end, ..message });
                        }
                        Item::Watermark(at) => {
                            while let Some(first) = held.first_entry().filter(|first| *first.key() < at) {
                                first
                                    .remove()
                                    .into_iter()
                                    .for_each(|message| session.give(Item::Message(message)));
                            }
                            session.give(Item::Watermark(at));
                        }
                    }
                }
            });
        }
    })
}

/// One summary for each time, given when the watermark is past it.
fn accumulate(input: Items<'_>) -> Items<'_> {
    input.unary(Pipeline, "accumulate", move |_, _| {
        let mut staged = BTreeMap::<u64, (String, Summary)>::new();
        move |input, output| {
            input.for_each(|capability, items| {
                let mut session = output.session(&capability);
                for item in items.drain(..) {
                    match item {
                        Item::Message(Message { time_ms, topic, payload }) => {
                            let value = reading(&payload);
                            let (_, summary) =
                                staged.entry(time_ms).or_insert_with(|| (topic, Summary::EMPTY));
                            summary.add(value);
                        }
                        Item::Watermark(at) => {
                            while let Some(first) = staged.first_entry().filter(|first| *first.key() < at) {
                                let (time_ms, (topic, summary)) = first.remove_entry();
                                let payload = serde_json::to_vec(&summary).expect("numbers can be written");
                                session.give(Item::Message(Message { time_ms, topic, payload }));
                            }
                        }
                    }
                }
            });
        }
    })
}

fn reading(payload: &[u8]) -> f64 {
    serde_json::from_slice::<Reading>(payload).expect("the bench wrote it").temperature
}

fn write(output: &mut BufWriter<File>, message: &Message) {
    let payload = serde_json::from_slice(&message.payload).expect("it is JSON");
    let properties = [("__ts", format!("{:015}:00000:plain", message.time_ms))];
    let line = OutputLine { topic: &message.topic, payload, properties };
    serde_json::to_writer(&mut *output, &line).expect("it is written");
    output.write_all(b"\n").expect("it is written");
}

impl Summary {
    const EMPTY: Summary =
        Summary { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0 };

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        (self.min, self.max) = (self.min.min(value), self.max.max(value));
        self.mean = self.sum / self.count as f64;
    }
}
