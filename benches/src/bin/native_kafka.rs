//! The native program that the host's Kafka path is compared with: what a Rust programmer
//! would write by hand with rdkafka. It takes readings from one topic, drops those of 50 °C
//! and less, adds Fahrenheit, produces the rest with acks=all, and stores the offset of each
//! reading once its own result is delivered.
//!
//! It ends when it has taken as many records as it was told to, and prints one JSON object:
//! records taken and produced, its CPU seconds, and the seconds from the first record to the
//! end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::Parser;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use serde::{Deserialize, Serialize};

/// Readings in, hot ones out in Fahrenheit as well.
#[derive(Parser)]
struct Args {
    #[arg(long)]
    address: String,
    #[arg(long)]
    input: String,
    #[arg(long)]
    output: String,
    #[arg(long)]
    group: String,
    /// Records to take before it ends.
    #[arg(long)]
    count: u64,
}

#[derive(Deserialize)]
struct Reading {
    msg_id: u64,
    temperature: f64,
}

#[derive(Serialize)]
struct Hot {
    msg_id: u64,
    temperature: f64,
    fahrenheit: f64,
}

/// Of each partition, the offsets whose result is under way, in order, and whether they are
/// delivered.
#[derive(Default)]
struct UnderWay(Mutex<BTreeMap<i32, VecDeque<(i64, bool)>>>);

impl UnderWay {
    fn begin(&self, partition: i32, offset: i64, is_done: bool) {
        let mut partitions = self.0.lock().expect("no panic under this lock");
        partitions.entry(partition).or_default().push_back((offset, is_done));
    }

    fn end(&self, partition: i32, offset: i64) {
        let mut partitions = self.0.lock().expect("no panic under this lock");
        let offsets = partitions.get_mut(&partition).expect("it is under way");
        let place = offsets.partition_point(|(other, _)| *other < offset);
        offsets[place].1 = true;
    }

    /// What to commit: of each partition the offset behind all that is done.
    fn take_done(&self, topic: &str) -> TopicPartitionList {
        let mut partitions = self.0.lock().expect("no panic under this lock");
        let mut list = TopicPartitionList::new();
        for (partition, offsets) in partitions.iter_mut() {
            let mut next = None;
            while offsets.front().is_some_and(|(_, is_done)| *is_done) {
                next = offsets.pop_front().map(|(offset, _)| offset + 1);
            }
            if let Some(next) = next {
                let _ = list.add_partition_offset(topic, *partition, Offset::Offset(next));
            }
        }
        list
    }
}

struct Reports(Arc<UnderWay>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    /// Partition and offset of the reading.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        result.as_ref().map_err(|(error, _)| error).expect("it is delivered");
        self.0.end((opaque >> 48) as i32, (opaque & ((1 << 48) - 1)) as i64);
    }
}

fn main() -> anyhow::Result<()> {
    let Args { address, input, output, group, count } = Args::parse();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &address);
    let consumer: BaseConsumer = config
        .clone()
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let under_way = Arc::<UnderWay>::default();
    let producer: BaseProducer<Reports> = config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .create_with_context(Reports(under_way.clone()))?;
    consumer.subscribe(&[&input])?;
    let (mut taken, mut produced, mut begun) = (0, 0, None);
    while taken < count {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        begun.get_or_insert_with(Instant::now);
        taken += 1;
        let (partition, offset) = (message.partition(), message.offset());
        let Reading { msg_id, temperature } = serde_json::from_slice(message.payload().unwrap_or_default())?;
        let is_hot = temperature > 50.0;
        under_way.begin(partition, offset, !is_hot);
        if is_hot {
            let hot = Hot { msg_id, temperature, fahrenheit: temperature * 1.8 + 32.0 };
            let payload = serde_json::to_vec(&hot)?;
            let opaque = (partition as usize) << 48 | offset as usize;
            let mut record: BaseRecord<'_, (), [u8], usize> =
                BaseRecord::with_opaque_to(&output, opaque).payload(&payload);
            while let Err((_, again)) = producer.send(record) {
                producer.poll(Duration::from_millis(1));
                record = again;
            }
            produced += 1;
        }
        if taken % 1024 == 0 {
            producer.poll(Duration::ZERO);
            consumer.store_offsets(&under_way.take_done(&input))?;
        }
    }
    producer.flush(Duration::from_secs(60))?;
    consumer.store_offsets(&under_way.take_done(&input))?;
    let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    println!(
        "{}",
        serde_json::json!({
            "taken": taken, "produced": produced, "cpu_seconds": cpu_seconds, "seconds": seconds,
        })
    );
    Ok(())
}
