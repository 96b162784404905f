//! A test bed: a real host on real servers, passing everything on, with a network between
//! them that can fail; a load whose messages are acknowledged one by one, and an outside
//! client that counts what comes out by id.

pub mod load;
pub mod site;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use self::{
    load::Load,
    site::{Shape, Site},
};
use crate::{
    broker::{self, Mosquitto},
    client::{Subscriber, Take},
    connector::Connector,
    count::Count,
    host::{Host, Launch},
    kafka::{self, Kafka},
    ledger::PhaseId,
    process::Process,
    proxy::Proxy,
    receiver::{Hook, Reader, Receiver, Since},
    sender::Sender,
};

/// How long the first message may take to come through.
const FIRST_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take until all that was sent is acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(120);
/// How long nothing may come while something is missing. A transaction that nobody ends holds up
/// who reads committed records for a minute, and a member that was killed its group for 10 s.
pub const QUIET_MAX: Duration = Duration::from_secs(90);
/// How long a broker may take to write down its sessions.
const SAVED_WITHIN: Duration = Duration::from_secs(20);
/// Clients of HTTP, each with one request under way.
const POSTERS: usize = 8;
pub const PARTITIONS: u32 = 4;

/// What beds are made with.
#[derive(Clone, Debug)]
pub struct Tools {
    pub host: PathBuf,
    pub guests: PathBuf,
    pub mosquitto: PathBuf,
    /// Kafka's jars.
    pub kafka: PathBuf,
    /// The library that lies about the time, if there is one.
    pub faketime: Option<PathBuf>,
    /// A bug on purpose, for a host that was built with such.
    pub plant: Option<&'static str>,
}

impl Tools {
    /// For a host's binary, with servers that are installed or were fetched.
    pub fn find(host: PathBuf) -> anyhow::Result<Self> {
        Ok(Tools {
            host,
            guests: crate::site::guests_built(),
            mosquitto: broker::find().with_context(|| format!("no mosquitto: {}", broker::INSTALL))?,
            kafka: kafka::find().with_context(|| format!("no Kafka: {}", kafka::INSTALL))?,
            faketime: faketime(),
            plant: None,
        })
    }
}

/// Debian's `libfaketime`: `TIDEGATE_FAKETIME`, what `cargo xtask` fetched, or what is installed.
fn faketime() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_FAKETIME") {
        return Some(path.into());
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/faketime/usr/lib");
    // Below a folder that is named for the machine.
    let folders = [fetched, "/usr/lib".into()].into_iter().filter_map(|lib| std::fs::read_dir(lib).ok());
    let libraries = folders.flatten().flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|path| path.is_file())
}

/// How much Kafka keeps of each partition.
const KAFKA_KEEPS: [&str; 3] =
    ["log.retention.bytes=536870912", "log.segment.bytes=67108864", "log.retention.check.interval.ms=5000"];

/// A Kafka that several beds use one after the other, and the proxy that hosts see it through.
pub struct KafkaServer {
    pub kafka: Kafka,
    proxy: Proxy,
    /// Topics that were made; each bed has its own.
    topics: u32,
    _folder: TempDir,
}

impl KafkaServer {
    fn start(libs: PathBuf) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let proxy = Proxy::before(0);
        // An hour of records would fill a disk; who is so far behind has long been seen to be.
        let properties = KAFKA_KEEPS.map(str::to_owned);
        let options = kafka::Options {
            properties: &properties,
            secure: Some("PLAINTEXT"),
            secure_known_as: Some(proxy.port),
            ..kafka::Options::default()
        };
        let kafka = Kafka::start(libs, folder.path(), &[], options)?;
        proxy.lead_to(kafka.secure_port());
        Ok(KafkaServer { kafka, proxy, topics: 0, _folder: folder })
    }
}

/// Beds of one kind after the other, which share what takes long to start.
#[derive(Default)]
pub struct Servers {
    kafka: Option<KafkaServer>,
}

/// The server at both ends.
enum Broker {
    Mqtt(Mosquitto),
    Kafka(KafkaServer),
    /// Those of the bed itself.
    Http,
}

/// What a bed is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub connector: Connector,
    pub shape: Shape,
    pub hosts: usize,
    /// Messages a second, over all clients.
    pub rate: u64,
    pub launch: Launch,
    /// A disk of its own for the data of its host, in bytes.
    pub disk_bytes: Option<u64>,
    /// Once nothing has come for so long, what is missing in the end is lost.
    pub quiet: Duration,
}

pub struct Bed {
    pub plan: Plan,
    pub count: Arc<Count>,
    pub hosts: Vec<Host>,
    pub sites: Vec<Site>,
    /// Between hosts and servers; the one that clients come through is last.
    pub proxies: Vec<Proxy>,
    pub load: Load,
    receiver: Receiver,
    broker: Broker,
    folder: TempDir,
}

impl Bed {
    /// Starts all of it and waits until the first message has come through.
    pub fn start(tools: &Tools, servers: &mut Servers, plan: Plan) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (mut proxies, mut listen) = (Vec::new(), None);
        let (broker, count, receiver, topics) = match plan.connector {
            Connector::Mqtt => {
                let mosquitto = Mosquitto::start(tools.mosquitto.clone(), folder.path(), &[])?;
                proxies.push(Proxy::before(mosquitto.port()));
                let topics = ("a/in".to_owned(), "a/out".to_owned());
                let count = Arc::new(Count::new(&topics.1));
                let taker = Taker::new(&count);
                let subscriber = Subscriber::connect(&mosquitto.address(), "outside", &topics.1, taker)?;
                (Broker::Mqtt(mosquitto), count, Receiver::Mqtt(subscriber), topics)
            }
            Connector::Kafka | Connector::Transactions => {
                let mut server = match servers.kafka.take() {
                    Some(server) => server,
                    None => KafkaServer::start(tools.kafka.clone())?,
                };
                server.topics += 1;
                let topics = (format!("in-{}", server.topics), format!("out-{}", server.topics));
                kafka::create_topics(&server.kafka.address(), &[&topics.0, &topics.1], PARTITIONS)?;
                let count = Arc::new(Count::new(&topics.1));
                let (address, out) = (server.kafka.address(), vec![topics.1.clone()]);
                let reader = Reader::start(&address, out, PARTITIONS, Since::Beginning, Taker::new(&count))?;
                (Broker::Kafka(server), count, Receiver::Kafka(reader), topics)
            }
            Connector::Http => {
                let count = Arc::new(Count::new("out"));
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let hook = Hook::start(listener, Taker::new(&count))?;
                proxies.push(Proxy::before(hook.port));
                let port = broker::free_port()?;
                proxies.push(Proxy::before(port));
                listen = Some(port);
                (Broker::Http, count, Receiver::Http(hook), ("in/x".to_owned(), "out".to_owned()))
            }
        };
        let address = match &broker {
            Broker::Kafka(server) => server.proxy.address(),
            Broker::Mqtt(_) | Broker::Http => proxies[0].address(),
        };
        let ends = site::Ends { address, listen, topics: topics.clone() };
        let mut bed_hosts = Vec::new();
        let mut sites = Vec::new();
        for number in 0..plan.hosts {
            let own = folder.path().join(format!("host-{number}"));
            let site =
                Site::write(&own.join("site"), &tools.guests, plan.connector, plan.shape, &ends, number)?;
            let mut launch = plan.launch.clone();
            launch.variables.extend(tools.plant.map(|bug| ("TIDEGATE_PLANT".to_owned(), bug.to_owned())));
            if let Some(bytes) = plan.disk_bytes {
                launch.through = on_a_disk(bytes, &own.join("data"));
            }
            bed_hosts.push(Host::start(tools.host.clone(), &own, site.dir(), launch)?);
            sites.push(site);
        }
        let (sender, input) = match &broker {
            Broker::Mqtt(mosquitto) => {
                (Sender::mqtt(&mosquitto.address(), "load", Arc::default())?, topics.0)
            }
            Broker::Kafka(server) => (Sender::kafka(&server.kafka.address())?, topics.0),
            Broker::Http => {
                let port = proxies.last().context("clients come through one")?.port;
                (Sender::http(port, POSTERS), format!("a/{}", topics.0))
            }
        };
        let first = count.look(|ledger| ledger.first_phase());
        let load = Load::start(sender, &input, &count, plan.rate);
        let mut bed = Bed { plan, count, hosts: bed_hosts, sites, proxies, load, receiver, broker, folder };
        let begun = std::time::Instant::now();
        if bed.count.first_of(first, begun, FIRST_WITHIN).is_none() {
            bail!("nothing came through within {FIRST_WITHIN:?}\n{}", bed.diagnosis());
        }
        Ok(bed)
    }

    /// The process of the broker, to be frozen.
    pub fn broker(&self) -> anyhow::Result<&Process> {
        match &self.broker {
            Broker::Mqtt(mosquitto) => mosquitto.process(),
            Broker::Kafka(server) => server.kafka.process(),
            Broker::Http => bail!("there is no broker"),
        }
    }

    /// What a broker may have forgotten that it had acknowledged is sent again, once; how many
    /// messages that was.
    pub fn send_again(&self, phases: &[PhaseId]) -> anyhow::Result<u64> {
        let Broker::Mqtt(mosquitto) = &self.broker else { return Ok(0) };
        let ids = self.count.missing(phases);
        let sender = Sender::mqtt(&mosquitto.address(), "again", Arc::default())?;
        load::again(sender, &self.input(), &ids, ACKNOWLEDGED_WITHIN)?;
        Ok(ids.len() as u64)
    }

    /// Ends the broker and starts it again: in order, or by kill -9.
    pub fn restart_broker(&mut self, kills: bool) -> anyhow::Result<()> {
        match &mut self.broker {
            Broker::Mqtt(mosquitto) => {
                if kills {
                    // So that there are sessions to come back to, without what came since.
                    mosquitto.save(SAVED_WITHIN)?;
                    mosquitto.kill()?;
                }
                mosquitto.restart()
            }
            Broker::Kafka(server) => {
                if kills {
                    server.kafka.kill()?;
                }
                server.kafka.restart()
            }
            Broker::Http => bail!("there is no broker"),
        }
    }

    /// Every network that can fail.
    pub fn networks(&self) -> impl Iterator<Item = &Proxy> {
        let kafka = match &self.broker {
            Broker::Kafka(server) => Some(&server.proxy),
            Broker::Mqtt(_) | Broker::Http => None,
        };
        self.proxies.iter().chain(kafka)
    }

    /// Where outside clients of the broker connect.
    pub fn broker_address(&self) -> anyhow::Result<String> {
        match &self.broker {
            Broker::Mqtt(mosquitto) => Ok(mosquitto.address()),
            Broker::Kafka(server) => Ok(server.kafka.address()),
            Broker::Http => bail!("there is no broker"),
        }
    }

    /// The topic that the load goes to.
    pub fn input(&self) -> String {
        match &self.broker {
            Broker::Kafka(server) => format!("in-{}", server.topics),
            Broker::Mqtt(_) | Broker::Http => "a/in".to_owned(),
        }
    }

    /// An error if anything that should run does not.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.load.check().context("the load")?;
        self.receiver.check()?;
        self.hosts.iter_mut().try_for_each(Host::check)
    }

    /// What the hosts say of themselves, for who asks why nothing comes.
    pub fn diagnosis(&mut self) -> String {
        let mut text = String::new();
        if let Err(error) = self.check() {
            text += &format!("{error:#}\n");
        }
        let (sent, came) = self.count.look(|ledger| ledger.sent_and_came());
        text += &format!("{sent} sent, {came} delivered\n");
        for host in &self.hosts {
            match host.status() {
                Ok(status) => text += &format!("status: {}\n", status["tenants"]),
                Err(error) => text += &format!("no status: {error:#}\n"),
            }
            text += &host.last_words();
        }
        text
    }

    /// Sends nothing more, waits until all is acknowledged and has come, and ends the hosts. What
    /// is missing then is lost. Gives back the servers.
    pub fn finish(mut self, servers: &mut Servers) -> anyhow::Result<Arc<Count>> {
        self.check()?;
        let Bed { plan, count, hosts, load, receiver, broker, folder, proxies, .. } = self;
        load.finish(ACKNOWLEDGED_WITHIN)?;
        count.all(plan.quiet);
        for host in hosts {
            host.stop()?;
        }
        if let Receiver::Kafka(reader) = &receiver {
            // What came twice may have come last.
            let records = reader.records(QUIET_MAX)?;
            let arrived = |ledger: &crate::ledger::Ledger| {
                ledger.sent_and_came().1 + ledger.duplicated() + ledger.unexpected()
            };
            if !count.wait(QUIET_MAX, |ledger| arrived(ledger) >= records) {
                bail!("{records} records are there, and one who reads on has not seen them all");
            }
        }
        drop((receiver, proxies, folder));
        if let Broker::Kafka(server) = broker {
            servers.kafka = Some(server);
        }
        Ok(count)
    }
}

/// Counts what comes.
struct Taker {
    count: Arc<Count>,
    taken: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Taker {
    fn new(count: &Arc<Count>) -> Self {
        Taker { count: count.clone(), taken: Vec::new() }
    }
}

impl Take for Taker {
    fn take(&mut self, topic: &[u8], rest: &[u8]) {
        self.taken.push((topic.to_owned(), rest.to_owned()));
    }

    fn end(&mut self) {
        self.count.arrive(self.taken.iter().map(|(topic, rest)| (topic.as_slice(), rest.as_slice())));
        self.taken.clear();
    }
}

/// What makes the host's data folder a disk of its own, in a mount namespace that goes with it.
fn on_a_disk(bytes: u64, data: &Path) -> Vec<String> {
    let data = data.display();
    let script =
        format!("mkdir -p '{data}' && mount -t tmpfs -o size={bytes} tmpfs '{data}' && exec \"$0\" \"$@\"");
    ["unshare", "-Urm", "sh", "-c", &script].map(str::to_owned).into()
}
