//! Builds the guests: components for wasm32-wasip2, in release because that is what
//! tenants deploy and what the host's limits are made for.

use std::{fs, path::PathBuf};

use crate::{root, run::cargo};

/// Crates whose component has a second name: AIO's schema scenario calls its filter so.
const SECOND_NAMES: [(&str, &str); 1] = [("schema-filter", "filter")];

/// Builds all of `tenants/`.
pub fn build() -> anyhow::Result<()> {
    eprintln!("building guests");
    cargo(&root().join("tenants"), ["build", "--quiet", "--release", "--target", "wasm32-wasip2"], &[])?;
    for (name, second) in SECOND_NAMES {
        if component(name).is_file() {
            fs::copy(component(name), component(second))?;
        }
    }
    Ok(())
}

/// Where the component of a crate is.
pub fn component(name: &str) -> PathBuf {
    root().join("tenants/target/wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")))
}
