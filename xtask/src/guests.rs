//! Builds the guests: components for wasm32-wasip2, in release because that is what
//! tenants deploy and what the host's limits are made for.

use std::path::PathBuf;

use crate::{root, run::cargo};

/// Builds all of `tenants/`, and the sample that is a workspace of its own.
pub fn build() -> anyhow::Result<()> {
    eprintln!("building guests");
    let release = ["build", "--quiet", "--release", "--target", "wasm32-wasip2"];
    cargo(&root().join("tenants"), release, &[])?;
    cargo(&root().join("tenants/samples/boiler"), release.into_iter().chain(["--locked"]), &[])
}

/// Where the component of a crate is.
pub fn component(name: &str) -> PathBuf {
    root().join("tenants/target/wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")))
}
