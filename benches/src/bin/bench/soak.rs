//! `soak`: a host on MQTT, and one on Kafka, at half of what each sustains, for an hour; an
//! outside client counts by id, and memory is looked at each second.

use anyhow::ensure;
use tidegate_benches::report::{Case, Hold, Report};
use tidegate_loadtest::{
    bed::Tools,
    connector::Connector,
    soak::{self, Effort, Soaked},
};

/// What memory may grow by once it has settled, in MiB an hour.
const SLOPE_MAX: f64 = 1.0;
const VALUE_OF: &str = "lost";

/// Those whose names have `only` in them.
pub fn run(quick: bool, only: &str) -> anyhow::Result<Report> {
    let tools = Tools::find(tidegate_benches::site::tidegate()?)?;
    let effort = if quick { Effort::quick() } else { Effort::full() };
    if quick {
        println!(
            "shortened: {:?} instead of {:?} each; memory is not held to its slope",
            effort.lasts,
            Effort::full().lasts
        );
    }
    let mut soaked = Vec::new();
    let chosen = [Connector::Mqtt, Connector::Kafka].into_iter().filter(|it| it.name().contains(only));
    for connector in chosen {
        eprintln!("{}", connector.name());
        soaked.push(soak::run(&tools, &effort, connector)?);
    }
    ensure!(!soaked.is_empty(), "nothing is soaked whose name has `{only}` in it: there are mqtt and kafka");
    let one = |name: String, unit: &'static str, value: f64| Case::median(name, unit, &[value]);
    let none = |name: String, value: u64| one(name, "messages", value as f64).hold(Hold::AtMost(0.0));
    let mut cases = vec![none(VALUE_OF.into(), soaked.iter().map(Soaked::lost).sum())];
    for it in &soaked {
        let name = it.connector.name();
        if !it.missing.is_empty() {
            println!("{name}: LOST, the first of them: {:?}", it.missing);
        }
        let slope = one(format!("{name}: memory grows by"), "MiB/h", it.slope_mib_per_hour);
        cases.extend([
            one(format!("{name}: sustained"), "messages/s", it.sustained),
            one(format!("{name}: rate"), "messages/s", it.rate as f64),
            one(format!("{name}: sent"), "messages", it.sent as f64),
            one(format!("{name}: delivered"), "messages", it.delivered as f64),
            none(format!("{name}: lost"), it.lost()),
            one(format!("{name}: duplicated"), "messages", it.duplicated as f64),
            none(format!("{name}: unexpected"), it.unexpected),
            // A minute says nothing of an hour.
            if quick { slope } else { slope.hold(Hold::AtMost(SLOPE_MAX)) },
            one(format!("{name}: resident when settled"), "MiB", it.resident_mib.0),
            one(format!("{name}: resident in the end"), "MiB", it.resident_mib.1),
        ]);
    }
    Ok(Report { bench: "soak", unit: "messages lost", value_of: VALUE_OF.into(), cases })
}
