//! Builds the guests: components for wasm32-wasip2, in release because that is what
//! tenants deploy and what the host's limits are made for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{made, root, run::cargo};

/// What guests are built for.
const TARGET: &str = "wasm32-wasip2";

/// Builds all of `tenants/`, and the sample that is a workspace of its own; makes hostile
/// components that no compiler would; lays out the artifacts of AIO's sample graphs.
pub fn build() -> anyhow::Result<()> {
    have_target()?;
    eprintln!("building guests");
    let release = ["build", "--quiet", "--release", "--target", TARGET];
    cargo(&root().join("tenants"), release, &[])?;
    build_dense()?;
    cargo(&root().join("tenants/samples/boiler"), release.into_iter().chain(["--locked"]), &[])?;
    made::build()?;
    lay_out(&root().join("tenants/operators/artifacts.toml"), &root().join("tenants/target/aio"))
}

/// Crates that are also there as `NAME_dense`, for hosts with `pool: dense`.
const DENSE: [&str; 3] = ["json-filter", "unit-convert", "pass-through"];

/// Builds those of [`DENSE`] a second time, with all the memory from the start that a slot
/// of such a host has. What else they are linked with, `tenants/.cargo` says.
fn build_dense() -> anyhow::Result<()> {
    let all_memory = format!(r#"target.{TARGET}.rustflags=["-C", "link-arg=--initial-memory={}"]"#, 4 << 20);
    let folder = root().join("tenants/target/dense");
    let folder_arg = folder.display().to_string();
    let mut build: Vec<&str> = ["build", "--quiet", "--release", "--target", TARGET].into();
    build.extend(["--config", &all_memory, "--target-dir", &folder_arg]);
    DENSE.iter().for_each(|name| build.extend(["-p", name]));
    cargo(&root().join("tenants"), build, &[])?;
    for name in DENSE {
        let built = folder.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
        let place = component(&format!("{name}-dense"));
        fs::copy(&built, &place).with_context(|| built.display().to_string())?;
    }
    Ok(())
}

/// Adds the target to a toolchain that was there before this repository and lacks it;
/// one that rustup installs for it brings it along.
fn have_target() -> anyhow::Result<()> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output();
    let sysroot = sysroot.context("cannot run rustc")?.stdout;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(root()).status();
    ensure!(
        added.is_ok_and(|status| status.success()),
        "the toolchain has no target {TARGET}: `rustup target add {TARGET}`, or your system's package of it"
    );
    Ok(())
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
    root()
        .join("tenants/target")
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", name.replace('-', "_")))
}
