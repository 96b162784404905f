//! `tidegate calibrate`: has a host measure again how much fuel a second of CPU time is.

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use super::{print::out, print_json, runtime};
use crate::{control, resource::quantity::show_fuel};

#[derive(clap::Args)]
pub struct CalibrateArgs {
    /// The host's data folder.
    #[arg(long, default_value = ".tidegate")]
    data: PathBuf,
}

pub fn calibrate(args: CalibrateArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (status, answer) = runtime()?.block_on(control::ask(&args.data, "/calibrate", json!({})))?;
    if !status.is_success() {
        anyhow::bail!("{}", answer["error"].as_str().unwrap_or("the host refused"));
    }
    if json {
        print_json(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let show = |fuel: &Value| fuel.as_u64().map_or("not measured".to_owned(), show_fuel);
    out!(
        "fuel a second of CPU time: {} (before: {})",
        show(&answer["fuelPerCpuSecond"]),
        show(&answer["before"])
    );
    Ok(ExitCode::SUCCESS)
}
