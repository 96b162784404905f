//! The native program that the host's MQTT path is compared with: what a Rust
//! programmer would write by hand with tokio and rumqttc's event loop. It takes
//! readings from one topic, drops those of 50 °C and less, adds Fahrenheit, publishes
//! the rest, and acknowledges each reading once its own result is acknowledged.
//!
//! It runs until SIGTERM or SIGINT and then prints one JSON object: messages taken
//! and published, and its CPU seconds.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use rumqttc::Outgoing;
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

/// Readings in, hot ones out in Fahrenheit as well.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 1883)]
    port: u16,
    #[arg(long, default_value = "in/t")]
    input: String,
    #[arg(long, default_value = "out/t")]
    output: String,
    /// Messages that may wait for their PUBACK, each way; in 3.1.1 only those that it publishes.
    #[arg(long, default_value_t = 100)]
    inflight: u16,
    /// Of MQTT.
    #[arg(long, value_enum, default_value_t = Version::V5)]
    version: Version,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "5")]
    V5,
    #[value(name = "3.1.1")]
    V311,
}

/// Room in each client's queue of requests. As many as there are packet ids, or the
/// two tasks could wait for room in each other's queue for ever: a broker without a
/// window of its own sends more than the receive maximum.
const REQUESTS_MAX: usize = 65_535;

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

/// What was done, and readings whose result is under way, as the version has them.
struct Work<Publish> {
    taken: u64,
    published: u64,
    /// Handed to the client, in order; it gives the packet id later.
    queued: VecDeque<Publish>,
    /// Sent, by the packet id of the result.
    sent: HashMap<u16, Publish>,
}

/// Messages taken and published.
type Done = (u64, u64);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (taken, published) = match args.version {
        Version::V5 => local.block_on(&runtime, v5::run(args))?,
        Version::V311 => local.block_on(&runtime, v311::run(args))?,
    };
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    println!(
        "{}",
        serde_json::json!({ "messages": taken, "published": published, "cpu_seconds": cpu_seconds })
    );
    Ok(())
}

/// The program in one version of MQTT, for which rumqttc has types of its own.
macro_rules! program {
    ($version:ident, { $($types:tt)* }, $client:item) => {
        mod $version {
            use super::*;
            $($types)*

            $client

            pub async fn run(args: Args) -> anyhow::Result<Done> {
                let work = Work { taken: 0, published: 0, queued: VecDeque::new(), sent: HashMap::new() };
                let work = Rc::new(RefCell::new(work));
                let (mut terminate, mut interrupt) =
                    (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
                let (source, source_loop) = client(&args, concat!("native-", stringify!($version), "-in"));
                let (sink, sink_loop) = client(&args, concat!("native-", stringify!($version), "-out"));
                let Args { input, output, .. } = args;
                let taking =
                    tokio::task::spawn_local(take(source_loop, source.clone(), sink, input, output, work.clone()));
                let answering = tokio::task::spawn_local(answer(sink_loop, source, work.clone()));
                tokio::select! {
                    ended = taking => ended??,
                    ended = answering => ended??,
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let work = work.borrow();
                Ok((work.taken, work.published))
            }

            /// The source's side: filters, converts and hands on.
            async fn take(
                mut source_loop: EventLoop,
                source: AsyncClient,
                sink: AsyncClient,
                input: String,
                output: String,
                work: Rc<RefCell<Work<Publish>>>,
            ) -> anyhow::Result<()> {
                loop {
                    match source_loop.poll().await? {
                        Event::Incoming(Incoming::ConnAck(_)) => source.subscribe(&input, QoS::AtLeastOnce).await?,
                        Event::Incoming(Incoming::Publish(publish)) => {
                            work.borrow_mut().taken += 1;
                            let Reading { msg_id, temperature } = serde_json::from_slice(&publish.payload)?;
                            if temperature <= 50.0 {
                                source.ack(&publish).await?;
                                continue;
                            }
                            let hot = Hot { msg_id, temperature, fahrenheit: temperature * 1.8 + 32.0 };
                            work.borrow_mut().queued.push_back(publish);
                            sink.publish(&output, QoS::AtLeastOnce, false, serde_json::to_vec(&hot)?).await?;
                        }
                        _ => {}
                    }
                }
            }

            /// The sink's side: what is acknowledged here is acknowledged there.
            async fn answer(
                mut sink_loop: EventLoop,
                source: AsyncClient,
                work: Rc<RefCell<Work<Publish>>>,
            ) -> anyhow::Result<()> {
                loop {
                    match sink_loop.poll().await? {
                        Event::Outgoing(Outgoing::Publish(id)) => {
                            let mut work = work.borrow_mut();
                            if let Some(publish) = work.queued.pop_front() {
                                work.sent.insert(id, publish);
                            }
                        }
                        Event::Incoming(Incoming::PubAck(ack)) => {
                            let publish = work.borrow_mut().sent.remove(&ack.pkid);
                            if let Some(publish) = publish {
                                work.borrow_mut().published += 1;
                                source.ack(&publish).await?;
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    };
}

program!(
    v5,
    {
        use rumqttc::v5::{
            AsyncClient, Event, EventLoop, Incoming, MqttOptions,
            mqttbytes::{QoS, v5::Publish},
        };
    },
    fn client(args: &Args, id: &str) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(id, &args.host, args.port);
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(3600));
        options.set_receive_maximum(Some(args.inflight));
        options.set_outgoing_inflight_upper_limit(args.inflight);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_manual_acks(true);
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        AsyncClient::new(options, REQUESTS_MAX)
    }
);

program!(
    v311,
    {
        use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Publish, QoS};
    },
    fn client(args: &Args, id: &str) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(id, &args.host, args.port);
        options.set_clean_session(false);
        options.set_inflight(args.inflight);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_manual_acks(true);
        let (client, mut polled) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = polled.network_options();
        network.set_tcp_nodelay(true);
        polled.set_network_options(network);
        (client, polled)
    }
);
