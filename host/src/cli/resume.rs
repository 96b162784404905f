//! `tidegate resume`: lets a dataflow go on that is paused or in quarantine. Control side.

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;

use super::{print::out, print_json, runtime};
use crate::control;

#[derive(clap::Args)]
pub struct ResumeArgs {
    /// The dataflow, as `tidegate status` names it.
    #[arg(value_name = "TENANT/DATAFLOW", value_parser = parse_name)]
    dataflow: (String, String),
    /// The host's data folder.
    #[arg(long, default_value = ".tidegate")]
    data: PathBuf,
}

fn parse_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((tenant, dataflow)) if ![tenant, dataflow].contains(&"") && !dataflow.contains('/') => {
            Ok((tenant.to_owned(), dataflow.to_owned()))
        }
        _ => Err("a dataflow is named TENANT/DATAFLOW".to_owned()),
    }
}

pub fn resume(args: ResumeArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (tenant, dataflow) = args.dataflow;
    let ask = json!({ "tenant": tenant, "dataflow": dataflow });
    let (status, answer) = runtime()?.block_on(control::ask(&args.data, "/resume", ask))?;
    if !status.is_success() {
        anyhow::bail!("{}", answer["error"].as_str().unwrap_or("the host refused"));
    }
    if json {
        print_json(&answer);
    } else {
        out!("resumed   {tenant}/{dataflow}");
    }
    Ok(ExitCode::SUCCESS)
}
