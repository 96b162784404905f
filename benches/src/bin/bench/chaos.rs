//! `chaos`: everything around a host, and the host, made to fail under load, on real servers;
//! an outside client counts by id. What it prints first is the table of `loadtest::chaos`.

use anyhow::ensure;
use tidegate_benches::report::{Case, Hold, Report};
use tidegate_loadtest::{
    bed::Tools,
    chaos::{self, Came, Effort, Row, Scenario},
    connector::Connector,
};

pub fn run(quick: bool, only: &str) -> anyhow::Result<Report> {
    let tools = Tools::find(tidegate_benches::site::tidegate()?)?;
    let effort = if quick { Effort::quick() } else { Effort::full() };
    let scenarios: Vec<Scenario> =
        Scenario::all().into_iter().filter(|it| it.name().contains(only)).collect();
    ensure!(!scenarios.is_empty(), "no scenario has `{only}` in its name");
    if let Some(shortened) = effort.shortened() {
        println!("{shortened}");
    }
    let rows = chaos::run(&tools, &effort, &scenarios);
    print!("{}", chaos::table(&rows));
    // What a machine lacks may be forgiven a developer in a hurry, and nobody else.
    let must_run = !quick || std::env::var_os("CI").is_some();
    Ok(report(&rows, must_run))
}

const VALUE_OF: &str = "lost, all scenarios";

fn report(rows: &[Row], must_run: bool) -> Report {
    let lost = |row: &Row| match &row.came_of_it {
        Came::Counted(figures) => figures.lost() as f64,
        Came::Failed(_) | Came::NotRun(_) => 0.0,
    };
    let none = |name: String, value: f64| Case::median(name, "messages", &[value]).hold(Hold::AtMost(0.0));
    let mut cases = vec![none(VALUE_OF.to_owned(), rows.iter().map(lost).sum())];
    for row in rows {
        let name = row.scenario.name();
        let figures = match &row.came_of_it {
            Came::Counted(figures) => figures,
            Came::Failed(_) => {
                cases.push(Case::median(format!("{name}: failed"), "", &[1.0]).hold(Hold::AtMost(0.0)));
                continue;
            }
            Came::NotRun(_) => {
                let case = Case::median(format!("{name}: not run"), "", &[1.0]);
                cases.push(if must_run { case.hold(Hold::AtMost(0.0)) } else { case });
                continue;
            }
        };
        let duplicated = figures.duplicated as f64;
        let of =
            |what: &str, value: u64| Case::median(format!("{name}: {what}"), "messages", &[value as f64]);
        let recovered: Vec<f64> = figures.recovered.iter().map(|it| it.as_secs_f64()).collect();
        cases.extend([
            of("sent", figures.sent),
            of("delivered", figures.delivered),
            none(format!("{name}: lost"), figures.lost() as f64),
            none(format!("{name}: unexpected"), figures.unexpected as f64),
            if row.scenario.connector == Connector::Transactions {
                none(format!("{name}: duplicated"), duplicated)
            } else {
                of("duplicated", figures.duplicated)
            },
            Case::median(format!("{name}: time to recover"), "s", &recovered),
        ]);
    }
    Report { bench: "chaos", unit: "messages lost", value_of: VALUE_OF.into(), cases }
}
