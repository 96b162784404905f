//! `kafka`: a topic of readings through two sealed operators to another topic, acks=all,
//! against a native program that does the same, and engines that one would use otherwise.
//! What is measured is seen from Kafka: the ends of the output topic.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use tidegate_benches::{
    report::{Case, Hold, Report},
    site::{Link, Process, SiteFolder, WITHIN, chain, policy_like_standard, tidegate},
};
use tidegate_loadtest::kafka::{INSTALL, Kafka, Options, find};

const PARTITIONS: u32 = 4;
/// What the native program cost in CPU on the machine of the first measurements, as a share of
/// Kafka Streams' cost there, with a fifth on top: beyond it a run is not valid.
const NATIVE_MAX: f64 = 0.81 / 2.8 * 1.2;
const INPUT: &str = "readings";
const SECOND: Duration = Duration::from_secs(1);

/// One program on one output topic.
struct Run {
    per_second: f64,
    /// CPU seconds of the program per million records.
    cpu: f64,
    resident_mib: f64,
}

struct Bench {
    kafka: Kafka,
    libs: PathBuf,
    records: u64,
    runs: u32,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let libs = find().context(INSTALL)?;
    let folder = tempfile::tempdir()?;
    let kafka = Kafka::start(libs.clone(), folder.path(), &[], Options::default())?;
    let (records, rounds) = if quick { (400_000, 1) } else { (2_000_000, 3) };
    let mut bench = Bench { kafka, libs, records, runs: 0 };
    eprintln!("{records} records");
    bench.preload()?;
    let names = ["native", "host", "Kafka Streams 4.1.0", "Bytewax 0.21.1"];
    let mut runs: [Vec<Run>; 4] = Default::default();
    for round in 0..rounds {
        for (at, name) in names.iter().enumerate() {
            eprintln!("round {}: {name}", round + 1);
            runs[at].push(match at {
                0 => bench.native()?,
                1 => bench.host()?,
                2 => bench.streams()?,
                _ => bench.bytewax()?,
            });
        }
    }
    let of = |at: usize, of: fn(&Run) -> f64| runs[at].iter().map(of).collect::<Vec<f64>>();
    let ratio = |to: usize, of: fn(&Run) -> f64| {
        runs[1].iter().zip(&runs[to]).map(|(host, other)| of(host) / of(other)).collect::<Vec<f64>>()
    };
    let per_second: fn(&Run) -> f64 = |run| run.per_second;
    let cpu: fn(&Run) -> f64 = |run| run.cpu;
    let value_of = "messages/s, host ÷ native";
    let mut cases = vec![
        Case::median(value_of, "x", &ratio(0, per_second)).hold(Hold::AtLeast(0.4)),
        Case::median("CPU, host ÷ native", "x", &ratio(0, cpu)).hold(Hold::AtMost(2.0)),
    ];
    for (at, name) in names.iter().enumerate().skip(2) {
        cases.push(
            Case::median(format!("messages/s, host ÷ {name}"), "x", &ratio(at, per_second))
                .hold(Hold::AtLeast(1.0)),
        );
        cases.push(Case::median(format!("CPU, host ÷ {name}"), "x", &ratio(at, cpu)).hold(Hold::AtMost(1.0)));
    }
    // A native program that is slow would flatter the host.
    let shares = runs[0].iter().zip(&runs[2]).map(|(native, streams)| native.cpu / streams.cpu);
    let shares = shares.collect::<Vec<f64>>();
    cases.push(
        Case::median(format!("CPU, native ÷ {}", names[2]), "x", &shares).hold(Hold::AtMost(NATIVE_MAX)),
    );
    for (at, name) in names.iter().enumerate() {
        cases.extend([
            Case::median(format!("{name}: messages/s"), "1/s", &of(at, per_second)),
            Case::median(format!("{name}: CPU s per million"), "s", &of(at, cpu)),
            Case::median(format!("{name}: resident"), "MiB", &of(at, |run| run.resident_mib)),
        ]);
    }
    Ok(Report {
        bench: "kafka",
        unit: "x messages/s of the native program",
        value_of: value_of.into(),
        cases,
    })
}

impl Bench {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.address());
        config
    }

    /// Readings from 0 to 100 °C, every second of them hot.
    fn preload(&self) -> anyhow::Result<()> {
        self.kafka.create_topic(INPUT, PARTITIONS)?;
        let producer: BaseProducer = self.client().set("queue.buffering.max.messages", "1000000").create()?;
        for number in 0..self.records {
            let temperature =
                if number % 2 == 0 { 20.0 + (number % 29) as f64 } else { 51.0 + (number % 43) as f64 };
            let reading = format!("{{\"msg_id\":{number},\"temperature\":{temperature:.2}}}");
            let partition = (number / 100 % u64::from(PARTITIONS)) as i32;
            let mut record: BaseRecord<'_, (), String> =
                BaseRecord::to(INPUT).payload(&reading).partition(partition);
            while let Err((_, again)) = producer.send(record) {
                producer.poll(Duration::from_millis(5));
                record = again;
            }
        }
        Ok(producer.flush(WITHIN)?)
    }

    /// A new output topic, and the group that reads for it.
    fn output(&mut self) -> anyhow::Result<String> {
        self.runs += 1;
        let output = format!("hot-{}", self.runs);
        self.kafka.create_topic(&output, PARTITIONS)?;
        Ok(output)
    }

    /// Waits until every hot reading is there. The first tenth is not measured: connections
    /// and caches are cold.
    fn measure(&self, output: &str, process: &mut Process) -> anyhow::Result<Run> {
        let consumer: BaseConsumer = self.client().set("group.id", "measure").create()?;
        let written = || -> anyhow::Result<u64> {
            let mut all = 0;
            for partition in 0..PARTITIONS as i32 {
                all += consumer.fetch_watermarks(output, partition, 10 * SECOND)?.1 as u64;
            }
            Ok(all)
        };
        let expected = self.records / 2;
        let until = Instant::now() + WITHIN;
        let (mut begun, mut resident) = (None, 0.0_f64);
        loop {
            let all = written()?;
            if all >= expected / 10 && begun.is_none() {
                begun = Some((Instant::now(), all, process.cpu_seconds()?));
                resident = process.resident_now_kib()? / 1024.0;
            }
            if all >= expected {
                ensure!(all == expected, "{all} records came, {expected} are right");
                break;
            }
            if let Some(status) = process.ended()? {
                bail!("it ended with {status} when {all} of {expected} had come");
            }
            ensure!(Instant::now() < until, "{all} of {expected} came");
            std::thread::sleep(Duration::from_millis(10));
        }
        let (at, first, cpu) = begun.context("some came before all")?;
        // Of the readings that were taken for them, twice as many.
        let taken = 2.0 * (expected - first) as f64;
        let per_second = taken / at.elapsed().as_secs_f64();
        let cpu = (process.cpu_seconds()? - cpu) / taken * 1e6;
        Ok(Run { per_second, cpu, resident_mib: resident })
    }

    fn native(&mut self) -> anyhow::Result<Run> {
        let output = self.output()?;
        let mut command = Command::new(tidegate()?.with_file_name("native_kafka"));
        command.args(["--address", &self.kafka.address(), "--input", INPUT, "--output", &output]);
        command.args(["--group", &output, "--count", &self.records.to_string()]);
        let mut process = Process::start(command.stdout(std::process::Stdio::null()), None)?;
        self.measure(&output, &mut process)
    }

    /// Job J2 as two sealed operators: drop what is 50 °C or less, add Fahrenheit.
    fn host(&mut self) -> anyhow::Result<Run> {
        let output = self.output()?;
        let dir = tempfile::tempdir()?;
        let endpoint = format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\n\
             metadata: {{ name: local }}\nspec: {{ endpointType: Kafka, kafkaSettings: {{ host: \"{}\", \
             consumerGroupId: \"{output}\" }} }}\n",
            self.kafka.address()
        );
        let site = SiteFolder::new(dir.path(), "shards: 1", &endpoint)?;
        let filter = [("field", "temperature"), ("op", "gt"), ("value", "50")];
        let convert = [("field", "temperature"), ("from", "C"), ("to", "F"), ("output", "fahrenheit")];
        site.component("a", "filter", "json_filter", None)?;
        site.component("a", "convert", "unit_convert", None)?;
        let links = [
            Link { kind: "filter", module: "filter", configuration: &filter },
            Link { kind: "map", module: "convert", configuration: &convert },
        ];
        site.write("tenants/a/artifacts/graph/1.yaml", &chain::graph("graph", &links))?;
        let dataflow = chain::dataflow("flow", "graph", ("local", INPUT), ("local", &output));
        site.write("tenants/a/dataflows/flow.yaml", &dataflow)?;
        let policy = policy_like_standard("bench", &[("inflight: 1Mi", "inflight: 16Mi")], &["local"])?;
        site.write("platform/policy-bench.yaml", &policy)?;
        site.tenants_under([("a", "bench")])?;
        let mut process = Process::host(dir.path())?;
        let run = self.measure(&output, &mut process)?;
        process.stop()?;
        Ok(run)
    }

    fn streams(&mut self) -> anyhow::Result<Run> {
        let output = self.output()?;
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let streams = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/kafka-streams");
        if !streams.exists() {
            let mut maven = Command::new("mvn");
            maven.args(["--quiet", "--batch-mode", "-DincludeScope=runtime", "dependency:copy-dependencies"]);
            maven.arg("--file").arg(peers.join("kafka_streams.pom.xml"));
            let status = maven.arg(format!("-DoutputDirectory={}", streams.display())).status()?;
            ensure!(status.success(), "Maven cannot fetch Kafka Streams");
        }
        let mut command = Command::new("java");
        command.arg("-cp").arg(format!("{}/*:{}/*", streams.display(), self.libs.display()));
        command.arg(peers.join("KafkaStreamsJob.java"));
        command.args([&self.kafka.address(), INPUT, &output]);
        let state = tempfile::tempdir()?;
        command.env("STATE_DIR", state.path()).stdout(std::process::Stdio::null());
        let mut process = Process::start(command.stderr(std::process::Stdio::null()), None)?;
        self.measure(&output, &mut process)
    }

    fn bytewax(&mut self) -> anyhow::Result<Run> {
        let output = self.output()?;
        let python = crate::peers::python("bytewax")?;
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/kafka_job.py");
        let mut command = Command::new(python);
        command.args(["-m", "bytewax.run"]).arg(format!("{}:flow", driver.display()));
        command.env("BROKER", self.kafka.address()).env("INPUT", INPUT).env("OUTPUT", &output);
        let mut process = Process::start(command.stdout(std::process::Stdio::null()), None)?;
        self.measure(&output, &mut process)
    }
}
