//! `tidegate dead-letters`: what dataflows gave up on, read from the data folder.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{print::out, print_json};
use crate::dead_letter::{self, Record};

/// Reads the dead letters of a data folder, whether its host runs or not.
#[derive(Args)]
pub struct DeadLettersArgs {
    /// The host's data folder.
    #[arg(long, global = true, default_value = ".tidegate")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A line for each: number, time, dataflow, operation, reason.
    List {
        /// Only this tenant's.
        tenant: Option<String>,
    },
    /// One of them whole, by its number in `list`.
    Show {
        number: usize,
        /// Numbers count this tenant's only.
        #[arg(long)]
        tenant: Option<String>,
    },
}

pub fn dead_letters(args: DeadLettersArgs, json: bool) -> anyhow::Result<ExitCode> {
    let dir = args.data.join("dead-letters");
    let read = |tenant: Option<&str>| {
        dead_letter::read(&dir, tenant).with_context(|| format!("cannot read {}", dir.display()))
    };
    match args.command {
        Command::List { tenant } => {
            let records = read(tenant.as_deref())?;
            for (index, record) in records.iter().enumerate() {
                if json {
                    print_json(&serde_json::to_value(record)?);
                } else {
                    out!("{}", line(index + 1, record));
                }
            }
        }
        Command::Show { number, tenant } => {
            let records = read(tenant.as_deref())?;
            let Some(record) = number.checked_sub(1).and_then(|index| records.get(index)) else {
                anyhow::bail!("there is no dead letter {number}; there are {}", records.len());
            };
            if json {
                print_json(&serde_json::to_value(record)?);
            } else {
                out!("{}", serde_json::to_string_pretty(record)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(number: usize, record: &Record) -> String {
    let operation = record.operation.as_deref().unwrap_or("-");
    let detail: String = record.detail.chars().take(60).collect();
    format!(
        "{number:>5}  {}  {}/{}/{operation}  {:?}  {detail}",
        record.at, record.tenant, record.dataflow, record.reason
    )
}
