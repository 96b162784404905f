//! `tidegate plan`: what a site asks of this machine, and whether it has as much. Control
//! side.

use std::{path::PathBuf, process::ExitCode};

use super::{exit, print, print_json, report};
use crate::{
    capacity::{self, Asked, Demand, Machine},
    deploy::{self, known::Known},
    resource::{Diagnostics, Site},
};

#[derive(clap::Args)]
pub struct PlanArgs {
    /// The site folder.
    dir: PathBuf,
}

pub fn plan(args: PlanArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (site, mut diagnostics) = Site::load(&args.dir);
    let asked = site.as_ref().map(|site| asked(site, &mut diagnostics));
    let Some(asked) = asked.filter(|_| !diagnostics.has_errors()) else {
        // What cannot run has no size.
        report(&diagnostics, json);
        return Ok(ExitCode::FAILURE);
    };
    let capacity = capacity::judge(&asked, &Machine::this());
    capacity.say(&mut diagnostics);
    if json {
        let mut document = capacity.to_json();
        document["diagnostics"] = diagnostics.to_json();
        print_json(&document);
    } else {
        print::to_out(format_args!("{}", capacity.to_text()));
        report(&diagnostics, false);
    }
    Ok(exit(&diagnostics))
}

fn asked(site: &Site, diagnostics: &mut Diagnostics) -> Asked {
    let mut known = Known::default();
    let demands = site.tenants.iter().map(|tenant| {
        let enabled = tenant.dataflows.iter().filter(|it| it.dataflow.enabled);
        let admitted: Vec<_> =
            enabled.map(|it| (it, deploy::admit(tenant, it, &mut known, diagnostics))).collect();
        Demand::of(tenant, admitted.iter().map(|(it, components)| (*it, components)), &site.endpoints)
    });
    let demands: Vec<_> = demands.collect();
    Asked::of(&site.host, demands.iter())
}
