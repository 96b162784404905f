//! A bench's result: a table for people, then one JSON object as the last line.

use std::process::Command;

use serde_json::{Value, json};

/// One measured figure.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// Smallest and largest over the rounds.
    pub spread: (f64, f64),
    pub hold: Option<Hold>,
}

/// What a figure must keep.
#[derive(Debug, Clone, Copy)]
pub enum Hold {
    AtMost(f64),
    AtLeast(f64),
}

impl Hold {
    fn keeps(self, value: f64) -> bool {
        match self {
            Hold::AtMost(most) => value <= most,
            Hold::AtLeast(least) => value >= least,
        }
    }

    fn bound(self) -> f64 {
        match self {
            Hold::AtMost(bound) | Hold::AtLeast(bound) => bound,
        }
    }
}

impl Case {
    /// The median of `rounds` with its spread.
    pub fn median(name: impl Into<String>, unit: &'static str, rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let spread = (sorted[0], sorted[sorted.len() - 1]);
        Case { name: name.into(), value: sorted[sorted.len() / 2], unit, spread, hold: None }
    }

    pub fn hold(mut self, hold: Hold) -> Self {
        self.hold = Some(hold);
        self
    }

    pub fn holds(&self) -> bool {
        self.hold.is_none_or(|hold| hold.keeps(self.value))
    }
}

/// A bench's name, its one number, and all that was measured.
#[derive(Debug)]
pub struct Report {
    pub bench: &'static str,
    pub unit: &'static str,
    /// The case whose value stands for the bench.
    pub value_of: String,
    pub cases: Vec<Case>,
}

impl Report {
    /// Prints the table and the JSON line. True if every figure is kept.
    pub fn print(&self) -> bool {
        self.print_table();
        self.print_json()
    }

    /// Prints the JSON line alone, for a bench that has a table of its own.
    pub fn print_json(&self) -> bool {
        println!("{}", self.json());
        self.cases.iter().all(Case::holds)
    }

    fn print_table(&self) {
        let widest = self.cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for case in &self.cases {
            let Case { name, value, unit, spread, hold } = case;
            let verdict = match hold {
                None => String::new(),
                Some(Hold::AtMost(bound)) => format!("  hold ≤ {bound}: {}", yes(case.holds())),
                Some(Hold::AtLeast(bound)) => format!("  hold ≥ {bound}: {}", yes(case.holds())),
            };
            println!("{name:widest$}  {value:>12.3} {unit}  ({:.3} to {:.3}){verdict}", spread.0, spread.1);
        }
    }

    fn json(&self) -> Value {
        let main = self.cases.iter().find(|case| case.name == self.value_of).expect("a case is the value");
        let cases = self.cases.iter().map(|case| {
            json!({
                "name": case.name, "value": case.value, "unit": case.unit,
                "min": case.spread.0, "max": case.spread.1,
                "hold": case.hold.map(Hold::bound), "holds": case.holds(),
            })
        });
        let cases: Vec<Value> = cases.collect();
        json!({
            "bench": self.bench, "unit": self.unit,
            "hold": main.hold.map(Hold::bound), "value": main.value,
            "holds": self.cases.iter().all(Case::holds),
            "cases": cases, "machine": machine(), "commit": commit(),
        })
    }
}

fn yes(holds: bool) -> &'static str {
    if holds { "kept" } else { "MISSED" }
}

fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    json!({ "cores": cores, "cpu": cpu_name() })
}

/// What the machine calls its processor.
pub fn cpu_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown", |(_, model)| model).to_owned()
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    output
        .map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Rounds to run: three in a hurry, five otherwise.
pub fn rounds(quick: bool) -> usize {
    if quick { 3 } else { 5 }
}
