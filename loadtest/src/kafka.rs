//! An Apache Kafka for a run: one node that is broker and controller (KRaft), on free
//! loopback ports, with a folder of its own; and its console tools.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures_executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
};

use crate::{broker::free_ports, process::Process};

/// How long it may take to listen: it is a JVM on whatever cores there are.
const LISTEN_WITHIN: Duration = Duration::from_secs(120);

/// How long making topics may take.
const TOPICS_WITHIN: Duration = Duration::from_secs(60);

/// How to get one, for messages.
pub const INSTALL: &str = "install a JDK and Maven (`sudo apt-get install default-jdk-headless maven`); `cargo xtask test` fetches Kafka with them";

/// What a test asks of it besides what all do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// The protocol of a further listener, such as `SASL_SSL`.
    pub secure: Option<&'o str>,
    /// Under which port that listener is known, if something stands before it.
    pub secure_known_as: Option<u16>,
    /// Further lines of its properties.
    pub properties: &'o [String],
    /// Further arguments with which its folder is made.
    pub format: &'o [&'o str],
}

pub struct Kafka {
    libs: PathBuf,
    folder: PathBuf,
    port: u16,
    secure_port: u16,
    cores: Vec<usize>,
    process: Option<Process>,
}

impl Kafka {
    /// On a folder of its own below `folder`.
    pub fn start(
        libs: PathBuf,
        folder: &Path,
        cores: &[usize],
        options: Options<'_>,
    ) -> anyhow::Result<Self> {
        let folder = folder.join("kafka");
        std::fs::create_dir_all(&folder)?;
        let [port, controller, secure_port] = free_ports()?;
        let secure =
            |port: u16| options.secure.map_or(String::new(), |_| format!(",SECURE://127.0.0.1:{port}"));
        let (listens, known) = (secure(secure_port), secure(options.secure_known_as.unwrap_or(secure_port)));
        let protocol = options.secure.unwrap_or("PLAINTEXT");
        let mut properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listens}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{known}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:{protocol}\n\
             log.dirs={}\n",
            folder.join("logs").display()
        );
        properties += "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n";
        for line in options.properties {
            properties += line;
            properties += "\n";
        }
        std::fs::write(folder.join("server.properties"), properties)?;
        let mut kafka = Kafka { libs, folder, port, secure_port, cores: cores.to_vec(), process: None };
        let mut format = kafka.java("kafka.tools.StorageTool");
        format.args(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c"]);
        format.arg(kafka.folder.join("server.properties")).args(options.format);
        let output = format.output().context("cannot run java")?;
        ensure!(output.status.success(), "Kafka's folder: {}", String::from_utf8_lossy(&output.stderr));
        kafka.run()?;
        Ok(kafka)
    }

    /// One of Kafka's programs, with little memory.
    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp"]);
        command.arg(format!("{}/*", self.libs.display())).arg(class);
        command
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut command = self.java("kafka.Kafka");
        command.arg(self.folder.join("server.properties"));
        let log = self.folder.join("kafka.log");
        let process = Process::start_server(&mut command, &self.cores, &[self.port], &log, LISTEN_WITHIN)?;
        self.process = Some(process);
        Ok(())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of the further listener.
    pub fn secure_port(&self) -> u16 {
        self.secure_port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it in order and starts it again, on the same port and folder.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.process.take() {
            process.stop()?;
        }
        self.run()
    }

    /// kill -9; [`Self::restart`] brings it back.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// The running process.
    pub fn process(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("it runs")
    }

    /// Makes a topic.
    pub fn create_topic(&self, topic: &str, partitions: u32) -> anyhow::Result<()> {
        create_topics(&self.address(), &[topic], partitions)
    }

    /// The console producer, each line of whose input becomes a record that Kafka has
    /// acknowledged before it ends.
    pub fn producer(&self, topic: &str) -> Command {
        let mut command = self.java("org.apache.kafka.tools.ConsoleProducer");
        command.args([
            "--bootstrap-server",
            &self.address(),
            "--topic",
            topic,
            "--request-required-acks",
            "all",
        ]);
        command
    }

    /// What the console consumer prints of the first `count` records of a topic, one a line,
    /// with what `properties` ask it to print.
    pub fn consume(&self, topic: &str, count: usize, properties: &[&str]) -> anyhow::Result<Vec<String>> {
        let count = count.to_string();
        let mut args = vec!["--topic", topic, "--from-beginning", "--max-messages", &count];
        args.extend(["--timeout-ms", "60000"]);
        args.extend(properties.iter().flat_map(|property| ["--property", property]));
        let output = self.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &args)?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    fn tool(&self, class: &str, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.java(class);
        command.args(["--bootstrap-server", &self.address()]).args(args).stdin(Stdio::null());
        command.output().context("cannot run java")
    }
}

/// Makes topics; those that are there stay as they are.
pub fn create_topics(address: &str, topics: &[impl AsRef<str>], partitions: u32) -> anyhow::Result<()> {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", address).create()?;
    let new = |topic| NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1));
    let new: Vec<_> = topics.iter().map(|topic| new(topic.as_ref())).collect();
    let options =
        AdminOptions::new().operation_timeout(Some(TOPICS_WITHIN)).request_timeout(Some(TOPICS_WITHIN));
    let made =
        block_on(admin.create_topics(&new, &options)).with_context(|| format!("Kafka at {address}"))?;
    for topic in made {
        match topic {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("Kafka at {address} does not make the topic `{topic}`: {error}"),
        }
    }
    Ok(())
}

/// Its kind and version, by its jars.
pub fn version(libs: &Path) -> String {
    let names = std::fs::read_dir(libs).into_iter().flatten().flatten();
    let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let version =
        names.find_map(|name| Some(name.strip_prefix("kafka-clients-")?.strip_suffix(".jar")?.to_owned()));
    format!("Apache Kafka {}", version.unwrap_or_default()).trim_end().to_owned()
}

/// Where Kafka's jars are: `TIDEGATE_KAFKA`, or what `cargo xtask` fetched; and a `java` is
/// needed on the PATH.
pub fn find() -> Option<PathBuf> {
    let is_java_there = || Command::new("java").arg("-version").output().is_ok();
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/kafka/libs");
    let libs = std::env::var_os("TIDEGATE_KAFKA").map_or(fetched, PathBuf::from);
    (libs.is_dir() && is_java_there()).then_some(libs)
}
