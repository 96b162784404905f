//! The bench `chaos` in small: it finds nothing lost at any connector, and a loss where
//! settlement is broken on purpose.

use std::time::Duration;

use tidegate_loadtest::{
    bed::Tools,
    chaos::{self, Came, Effort, Fault, Row, Scenario},
    connector::Connector,
};

use crate::mosquitto;

/// `None` only where `cargo xtask test` has said so.
fn tools(plant: Option<&'static str>) -> Option<Tools> {
    mosquitto::binary()?;
    if tidegate_loadtest::kafka::find().is_none() && std::env::var_os("TIDEGATE_WITHOUT_KAFKA").is_some() {
        eprintln!("SKIPPED: no Kafka");
        return None;
    }
    let tools = Tools::find(env!("CARGO_BIN_EXE_tidegate").into()).expect("mosquitto and Kafka are there");
    Some(Tools { plant, ..tools })
}

fn run(tools: &Tools, effort: &Effort, scenarios: &[(Connector, Fault)]) -> Vec<Row> {
    let scenario = |&(connector, fault): &(Connector, Fault)| Scenario { connector, fault };
    chaos::run(tools, effort, &scenarios.iter().map(scenario).collect::<Vec<_>>())
}

#[test]
fn chaos_loses_nothing_at_any_connector() {
    let Some(tools) = tools(None) else { return };
    let effort = Effort { kills: 1, redeploys: 2, freeze: Duration::from_secs(1), ..Effort::quick() };
    let scenarios = [
        (Connector::Mqtt, Fault::HostKilled),
        (Connector::Mqtt, Fault::LinksHalfClosed),
        (Connector::Mqtt, Fault::Redeployed),
        (Connector::Http, Fault::HostKilled),
        (Connector::Http, Fault::LinksTruncated),
        (Connector::Http, Fault::Redeployed),
        (Connector::Kafka, Fault::BrokerFrozen),
        (Connector::Kafka, Fault::LinksCut),
        (Connector::Transactions, Fault::LinksTruncated),
        (Connector::Transactions, Fault::Redeployed),
    ];
    let rows = run(&tools, &effort, &scenarios);
    assert_eq!(rows.len(), scenarios.len());
    assert!(rows.iter().all(|row| row.holds(true)), "{}", chaos::table(&rows));
}

#[test]
fn chaos_reports_loss_when_settlement_is_broken() {
    let Some(tools) = tools(Some("early-ack")) else { return };
    // What is lost never comes. Each client of HTTP has a request under way at every moment: over
    // MQTT a host that has nothing else to do may have passed on all of it at each kill.
    let effort = Effort { kills: 5, rate: 5_000, quiet: Duration::from_secs(3), ..Effort::quick() };
    let rows = run(&tools, &effort, &[(Connector::Http, Fault::HostKilled)]);
    let [Row { came_of_it: Came::Counted(figures), .. }] = rows.as_slice() else { panic!("{rows:?}") };
    assert!(figures.lost() > 0, "an early ack lost nothing: the count cannot fail");
    assert!(!figures.missing.is_empty() && !rows[0].holds(false), "{rows:?}");
    assert!(chaos::table(&rows).contains("LOST, the first of them"), "{}", chaos::table(&rows));
}
