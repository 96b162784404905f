//! Builds the guests: components for wasm32-wasip2, in release because that is what
//! tenants deploy and what the host's limits are made for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{root, run::cargo};

/// Builds all of `tenants/`, and the sample that is a workspace of its own; lays out the
/// artifacts of AIO's sample graphs.
pub fn build() -> anyhow::Result<()> {
    eprintln!("building guests");
    let release = ["build", "--quiet", "--release", "--target", "wasm32-wasip2"];
    cargo(&root().join("tenants"), release, &[])?;
    cargo(&root().join("tenants/samples/boiler"), release.into_iter().chain(["--locked"]), &[])?;
    lay_out(&root().join("tenants/operators/artifacts.toml"), &root().join("tenants/target/aio"))
}

/// Copies components to the places below `to` that a list (`"PLACE" = "CRATE"`) names.
pub fn lay_out(list: &Path, to: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(list).with_context(|| list.display().to_string())?;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (place, name) = line.split_once('=').with_context(|| format!("{}: `{line}`", list.display()))?;
        let (place, name) = (place.trim().trim_matches('"'), name.trim().trim_matches('"'));
        let component = component(name);
        let place = to.join(place);
        fs::create_dir_all(place.parent().context("below the folder")?)?;
        fs::copy(&component, &place).with_context(|| component.display().to_string())?;
    }
    Ok(())
}

/// Where the component of a crate is.
pub fn component(name: &str) -> PathBuf {
    root().join("tenants/target/wasm32-wasip2/release").join(format!("{}.wasm", name.replace('-', "_")))
}
