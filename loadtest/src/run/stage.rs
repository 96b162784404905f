//! What a run runs on: a broker, a host on a site folder, each on cores of its own; or
//! a host that somebody else runs. All of it goes when this is dropped.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::Options;
use crate::{
    attack::Attack,
    broker::{self, Mosquitto},
    client::{Subscriber, Take},
    connector::Connector,
    cores::Cores,
    host::{self, Applied, Host, Launch},
    kafka::{self, Kafka},
    ledger::Ledger,
    process::{self, Usage},
    progress::Progress,
    receiver::{Hook, Reader, Receiver, Since},
    scenario::{BrokerKind, Scenario, Tenants, Topics},
    scorecard::Setup,
    sender::Sender,
    site::{ServerAt, Site, passing, topic},
};

/// Between two looks at the host's memory and CPU.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a host's allocator may take to give back what is free.
const SETTLE_WITHIN: Duration = Duration::from_secs(6);
/// Of each topic of Kafka: a tenant's messages are to come in order.
const PARTITIONS: u32 = 1;
/// Clients of HTTP, each with one request under way.
const POSTERS: usize = 64;

pub struct Stage {
    // In the order in which they end.
    ours: Option<Ours>,
    connector: Connector,
    /// Where load and host meet.
    server: ServerAt,
    /// For whoever takes webhooks, until it does.
    hook: Option<TcpListener>,
    setup: Setup,
    host_id: Arc<AtomicU32>,
    peak: Arc<AtomicU64>,
}

struct Ours {
    host: Host,
    server: Server,
    site: Site,
    _folder: Option<tempfile::TempDir>,
}

/// What is at both ends of the host.
enum Server {
    Mosquitto(Mosquitto),
    Kafka(Kafka),
    /// In the host itself: its broker, or its server of HTTP.
    Own,
}

impl Stage {
    /// Sets everything up, and pins this process where the host is not.
    pub fn set(scenario: &Scenario, options: &Options, progress: &mut Progress) -> anyhow::Result<Self> {
        let cores = Cores::divide(scenario.host.shards as usize)?;
        if let Some(address) = &options.against {
            if scenario.connector.is_kafka() {
                make_topics(&scenario.topics, &scenario.tenants.names(), address)?;
            }
            return Ok(Stage {
                ours: None,
                connector: scenario.connector,
                server: ServerAt::Broker(address.clone()),
                hook: None,
                setup: setup(None, address.clone(), None),
                host_id: Arc::default(),
                peak: Arc::default(),
            });
        }
        let binary = host::find()?;
        if cores.are_apart() {
            Cores::pin(&cores.others)?;
        } else {
            progress.step("one core for everything: latency includes the load's own work");
        }
        let folder = tempfile::Builder::new().prefix("tidegate-loadtest-").tempdir()?;
        let (path, folder) = match options.keep {
            false => (folder.path().to_owned(), Some(folder)),
            true => (folder.keep(), None),
        };
        if options.keep {
            progress.step(&format!("everything is kept in {}", path.display()));
        }
        let hook = match scenario.connector {
            Connector::Http => Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?),
            _ => None,
        };
        let (server, at, version) = serve(scenario, hook.as_ref(), &path, &cores)?;
        let site = Site::new(&path.join("site"), &options.guests, scenario, &at)?;
        if let Tenants::Named(names) = &scenario.tenants {
            site.quiet(names)?;
        }
        let version_of_host = host::version(&binary);
        progress.step(&format!("starting {} beside {version}", binary.display()));
        let launch = Launch { cores: cores.host.clone(), ..Launch::default() };
        let host = Host::start(binary, &path, site.dir(), launch)?;
        let host_id = host.id();
        Ok(Stage {
            ours: Some(Ours { host, server, site, _folder: folder }),
            connector: scenario.connector,
            server: at,
            hook,
            setup: setup(Some(version_of_host), version, Some(&cores)),
            host_id,
            peak: Arc::default(),
        })
    }

    /// The address of the broker.
    pub fn broker(&self) -> anyhow::Result<String> {
        match &self.server {
            ServerAt::Broker(address) => Ok(address.clone()),
            ServerAt::Embedded(port) => Ok(format!("127.0.0.1:{port}")),
            ServerAt::Http { .. } => bail!("there is no broker"),
        }
    }

    /// A client that sends. It stops waiting for a broker that is away once `stop` is set.
    pub fn sender(&self, client_id: &str, stop: Arc<AtomicBool>) -> anyhow::Result<Sender> {
        match &self.server {
            ServerAt::Http { listen, .. } => Ok(Sender::http(*listen, POSTERS)),
            _ if self.connector.is_kafka() => Sender::kafka(&self.broker()?),
            _ => Sender::mqtt(&self.broker()?, client_id, stop),
        }
    }

    /// Where a tenant's messages are sent to.
    pub fn input(&self, scenario: &Scenario, tenant: &str) -> String {
        let input = topic(&scenario.topics.input, tenant);
        // Below the tenant, whatever the topic is.
        if self.connector == Connector::Http { format!("{tenant}/{input}") } else { input }
    }

    /// A client that takes all that comes out for some tenants.
    pub fn receiver(
        &mut self,
        scenario: &Scenario,
        client_id: &str,
        take: impl Take,
    ) -> anyhow::Result<Receiver> {
        let output = &scenario.topics.output;
        if let Some(listener) = self.hook.take() {
            return Ok(Receiver::Http(Hook::start(listener, take)?));
        }
        let address = self.broker()?;
        if self.connector.is_kafka() {
            let topics = scenario.tenants.names().iter().map(|name| topic(output, name)).collect();
            return Ok(Receiver::Kafka(Reader::start(&address, topics, PARTITIONS, Since::Now, take)?));
        }
        let filter = output.replace("{tenant}", "+");
        Ok(Receiver::Mqtt(Subscriber::connect(&address, client_id, &filter, take)?))
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Whether the host is ours to deploy to, to kill and to look at.
    pub fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    fn ours(&mut self) -> anyhow::Result<&mut Ours> {
        self.ours.as_mut().context("the host is somebody else's")
    }

    /// Looks at the host every now and then, for the timeline.
    pub fn watch(&self, ledger: Arc<Mutex<Ledger>>, began: Instant) -> Watch {
        let ends = Arc::new(AtomicBool::new(false));
        let (id, peak, stop) = (self.host_id.clone(), self.peak.clone(), ends.clone());
        let cores = self.setup.host_cores.len().max(1) as f64;
        let look = move || {
            let mut last = (Instant::now(), process::usage(id.load(Ordering::SeqCst)));
            while !stop.load(Ordering::SeqCst) {
                thread::sleep(LOOK_EVERY);
                let usage = process::usage(id.load(Ordering::SeqCst));
                let (now, spent) = (Instant::now(), usage.cpu_seconds - last.1.cpu_seconds);
                // Between a child's end and its being waited for, its time may be seen late.
                let cpu = (spent / (now - last.0).as_secs_f64()).clamp(0.0, cores);
                last = (now, usage);
                peak.fetch_max(usage.memory_bytes, Ordering::SeqCst);
                let at_ns = began.elapsed().as_nanos() as u64;
                let mut ledger = ledger.lock().expect("no panic under this lock");
                ledger.timeline.host(at_ns, usage.memory_bytes, cpu);
            }
        };
        let thread = self.is_ours().then(|| thread::spawn(look));
        Watch { ends, thread }
    }

    fn usage(&self) -> Usage {
        process::usage(self.host_id.load(Ordering::SeqCst))
    }

    pub fn cpu_seconds(&self) -> Option<f64> {
        self.is_ours().then(|| self.usage().cpu_seconds)
    }

    /// The most memory since this was asked last.
    pub fn take_peak(&self) -> u64 {
        self.peak.swap(self.usage().memory_bytes, Ordering::SeqCst)
    }

    /// Once it does not shrink any more.
    pub fn settled_memory(&self) -> u64 {
        let until = Instant::now() + SETTLE_WITHIN;
        let mut least = self.usage().memory_bytes;
        while self.is_ours() && Instant::now() < until {
            thread::sleep(Duration::from_millis(750));
            let now = self.usage().memory_bytes;
            if now as f64 > least as f64 * 0.998 {
                return least.min(now);
            }
            least = now;
        }
        least
    }

    /// An error if host or broker ended by themselves.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.ours.as_mut().map_or(Ok(()), |ours| ours.host.check())
    }

    pub fn deploy_quiet(&mut self, names: &[String]) -> anyhow::Result<()> {
        let ours = self.ours()?;
        ours.site.quiet(names)?;
        done(ours.host.apply()?)
    }

    /// A host that is somebody else's has them already.
    pub fn deploy_attackers(&mut self, attack: &Attack, count: usize) -> anyhow::Result<()> {
        let Some(ours) = &mut self.ours else { return Ok(()) };
        ours.site.attackers(attack, count, None)?;
        done(ours.host.apply()?)
    }

    pub fn remove_attackers(&mut self, attack: &Attack, count: usize) -> anyhow::Result<()> {
        let Some(ours) = &mut self.ours else { return Ok(()) };
        ours.site.without_attackers(attack, count)?;
        done(ours.host.apply()?)
    }

    /// One deploy of an attack that happens there, and back. Whether the host took it.
    pub fn try_attackers(&mut self, attack: &Attack, count: usize, variant: u32) -> anyhow::Result<Applied> {
        let ours = self.ours()?;
        ours.site.attackers(attack, count, Some(variant))?;
        let applied = ours.host.apply()?;
        ours.site.without_attackers(attack, count)?;
        if applied == Applied::Done {
            done(ours.host.apply()?)?;
        }
        Ok(applied)
    }

    /// One deploy of tenants that nobody needs, and back.
    pub fn pass(&mut self, count: usize, variant: u32) -> anyhow::Result<()> {
        if self.connector.is_kafka() {
            make_topics(&self.connector.topics(), &passing(count, variant), &self.broker()?)?;
        }
        let ours = self.ours()?;
        let names = ours.site.passing(count, variant)?;
        done(ours.host.apply()?)?;
        ours.site.without_passing(&names)?;
        done(ours.host.apply()?)
    }

    pub fn kill_host(&mut self) -> anyhow::Result<()> {
        self.ours()?.host.kill_and_start()
    }

    pub fn restart_broker(&mut self) -> anyhow::Result<()> {
        match &mut self.ours()?.server {
            Server::Mosquitto(broker) => broker.restart(),
            Server::Kafka(kafka) => kafka.restart(),
            Server::Own => bail!("the broker is the host's own"),
        }
    }

    /// After an attack that failed: a host without the attackers.
    pub fn recover(&mut self, attack: &Attack, count: usize) -> anyhow::Result<()> {
        let Some(ours) = &mut self.ours else { return Ok(()) };
        if ours.host.check().is_err() {
            ours.host.kill_and_start()?;
        }
        // They may be gone already.
        let _ = ours.site.without_attackers(attack, count);
        done(ours.host.apply()?)
    }

    /// What the host says it took from some tenants, and how often their operators failed;
    /// None if it is somebody else's.
    pub fn counted(&self, names: &[String]) -> anyhow::Result<Option<(u64, u64)>> {
        let Some(ours) = &self.ours else { return Ok(None) };
        let status = ours.host.status()?;
        let tenants = status["tenants"].as_array().context("the host's status has no tenants")?;
        let (mut taken, mut errors) = (0, 0);
        for tenant in tenants.iter().filter(|it| names.iter().any(|name| it["name"] == name.as_str())) {
            for dataflow in tenant["dataflows"].as_array().into_iter().flatten() {
                taken += dataflow["counters"]["received"].as_u64().unwrap_or(0);
                for operator in dataflow["operators"].as_array().into_iter().flatten() {
                    let counter = |name: &str| operator["counters"][name].as_u64().unwrap_or(0);
                    errors += counter("errors") + counter("faults");
                }
            }
        }
        Ok(Some((taken, errors)))
    }
}

fn done(applied: Applied) -> anyhow::Result<()> {
    match applied {
        Applied::Done => Ok(()),
        Applied::Refused(said) => bail!("the host refused the site: {said}"),
    }
}

/// Starts what is to be at both ends of the host; where it is, and what.
fn serve(
    scenario: &Scenario,
    hook: Option<&TcpListener>,
    folder: &Path,
    cores: &Cores,
) -> anyhow::Result<(Server, ServerAt, String)> {
    if let Some(hook) = hook {
        let at = ServerAt::Http { listen: broker::free_port()?, hook: hook.local_addr()?.port() };
        return Ok((Server::Own, at, "clients of HTTP".into()));
    }
    if scenario.connector.is_kafka() {
        let libs = kafka::find().with_context(|| format!("no Kafka: {}", kafka::INSTALL))?;
        let version = kafka::version(&libs);
        let kafka = Kafka::start(libs, folder, &cores.others, kafka::Options::default())?;
        let address = kafka.address();
        make_topics(&scenario.topics, &scenario.tenants.names(), &address)?;
        return Ok((Server::Kafka(kafka), ServerAt::Broker(address), version));
    }
    Ok(match wanted_broker(scenario.host.broker)? {
        Some(binary) => {
            let broker = Mosquitto::start(binary, folder, &cores.others)?;
            let (address, version) = (broker.address(), broker.version());
            (Server::Mosquitto(broker), ServerAt::Broker(address), version)
        }
        None => (Server::Own, ServerAt::Embedded(broker::free_port()?), "the host's own".into()),
    })
}

/// Both topics of each tenant, of which Kafka has to be told.
fn make_topics(topics: &Topics, tenants: &[String], address: &str) -> anyhow::Result<()> {
    let of = |name: &String| [topic(&topics.input, name), topic(&topics.output, name)];
    let all: Vec<String> = tenants.iter().flat_map(of).collect();
    kafka::create_topics(address, &all, PARTITIONS)
}

/// The binary, or None for the broker in the host.
fn wanted_broker(kind: BrokerKind) -> anyhow::Result<Option<PathBuf>> {
    let found = match kind {
        BrokerKind::Embedded => None,
        BrokerKind::Any => broker::find(),
        BrokerKind::Mosquitto => {
            let found = broker::find();
            ensure!(found.is_some(), "this scenario needs mosquitto: {}", broker::INSTALL);
            found
        }
    };
    Ok(found)
}

fn setup(host: Option<String>, broker: String, cores: Option<&Cores>) -> Setup {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()));
    let of = |pick: fn(&Cores) -> &Vec<usize>| cores.map(|cores| pick(cores).clone()).unwrap_or_default();
    Setup {
        host,
        broker,
        cpu: cpu.unwrap_or("unknown").to_owned(),
        host_cores: of(|cores| &cores.host),
        other_cores: of(|cores| &cores.others),
    }
}

/// Ends the looks at the host when dropped.
pub struct Watch {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
