//! The bridge team of the demo, where there is a Kafka: readings that Kafka has, which come
//! out at the broker.

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::Path,
    process::Stdio,
    thread::JoinHandle,
};

use anyhow::{Context as _, ensure};
use tidegate_loadtest::kafka::{INSTALL, Kafka, Options, find};

use super::{Demo, lay_out_team, paced};

pub const TEAM: &str = "bridge";
const TOPIC: &str = "readings";

/// A Kafka of the demo's own, which ends with it.
pub struct Bridge {
    kafka: Kafka,
}

impl Bridge {
    /// Adds the team to the site. `None`, and it says so, where there is no Kafka.
    pub fn start(site: &Path, folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(libs) = find() else {
            println!("no bridge team, for there is no Kafka: {INSTALL}");
            return Ok(None);
        };
        eprintln!("starting Kafka");
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        let kafka = Kafka::start(libs, folder, &[], Options::default())?;
        kafka.create_topic(TOPIC, 4)?;
        lay_out_team("kafka", site)?;
        let endpoint = format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\nmetadata: {{ name: kafka }}\n\
             spec: {{ endpointType: Kafka, kafkaSettings: {{ host: \"{}\", consumerGroupId: demo }} }}\n",
            kafka.address()
        );
        fs::write(site.join("platform/kafka.yaml"), endpoint)?;
        Ok(Some(Bridge { kafka }))
    }

    /// Gives Kafka payloads over and over, at the demo's rate, by its own console producer;
    /// how many that were.
    pub fn publish(&self, payloads: Vec<String>, demo: Demo) -> JoinHandle<anyhow::Result<(String, u64)>> {
        let mut producer = self.kafka.producer(TOPIC);
        std::thread::spawn(move || {
            producer.stdin(Stdio::piped()).stdout(Stdio::null());
            let mut producer = producer.spawn().context("cannot run Kafka's producer")?;
            let mut lines = BufWriter::new(producer.stdin.take().context("piped")?);
            let sent = paced(demo, |number| {
                writeln!(lines, "{}", payloads[number as usize % payloads.len()])?;
                // A second's worth comes at once otherwise.
                Ok(lines.flush()?)
            })?;
            // It ends with its input, once Kafka has acknowledged all.
            drop(lines);
            let status = producer.wait()?;
            ensure!(status.success(), "Kafka's producer ended with {status}");
            Ok((TEAM.to_owned(), sent))
        })
    }
}
