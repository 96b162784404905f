//! A host in this process, on a site folder, fed and watched through its memory
//! endpoints: for what cannot be seen from outside.

use std::path::Path;

use anyhow::Context;
use tidegate::{
    batch::{Batch, BatchBuilder},
    host::{self, Host, OverTotal},
    resource::Site,
};

use crate::site::tidegate;

/// What `tidegate up` starts, but for its control socket.
pub struct Inside {
    runtime: tokio::runtime::Runtime,
    host: Option<Host>,
}

impl Inside {
    /// Starts a host with nothing on it; state is kept in `data`.
    pub fn start(site: &Path, data: &Path) -> anyhow::Result<Self> {
        let site = load(site)?;
        let runtime = host::runtime()?;
        std::fs::create_dir_all(data)?;
        let host = {
            let _guard = runtime.enter();
            Host::start(&site.host, data, tidegate()?)?
        };
        Ok(Inside { runtime, host: Some(host) })
    }

    pub fn apply(&mut self, site: &Site) -> anyhow::Result<()> {
        let host = self.host.as_mut().context("it runs")?;
        let applied = self.runtime.block_on(host.apply(site, OverTotal::Refuse));
        applied.map(drop).map_err(|problems| anyhow::anyhow!("{problems:?}"))
    }

    /// What of the site folder has changed since it was applied.
    pub fn read(&self, dir: &Path) -> anyhow::Result<Site> {
        let (site, problems) = Site::load_since(dir, self.host().seen());
        site.with_context(|| format!("{problems:?}"))
    }

    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("until it is stopped")
    }

    pub fn status(&self) -> serde_json::Value {
        self.runtime.block_on(self.host().status(None))
    }

    pub fn stop(mut self) {
        if let Some(host) = self.host.take() {
            self.runtime.block_on(host.shut_down());
        }
    }
}

/// A site without a fault.
pub fn load(dir: &Path) -> anyhow::Result<Site> {
    let (site, problems) = Site::load(dir);
    site.with_context(|| format!("{problems:?}"))
}

/// A delivery of these payloads.
pub fn delivery(payloads: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new("bench");
    payloads.iter().for_each(|payload| builder.push(b"in", None, payload.as_bytes(), []));
    builder.finish()
}

/// JSON of about 100 bytes that passes [`crate::inside::FILTER`].
pub const READING: &str =
    r#"{"msg_id":100001,"sensor":"boiler-room-north-17","temperature":70.5,"unit":"celsius-scale"}"#;
/// What the JSON filter lets through.
pub const FILTER: &[(&str, &str)] = &[("field", "temperature"), ("op", "gt"), ("value", "50")];
/// Celsius to Fahrenheit, beside it.
pub const CONVERT: &[(&str, &str)] =
    &[("field", "temperature"), ("from", "C"), ("to", "F"), ("output", "fahrenheit")];
