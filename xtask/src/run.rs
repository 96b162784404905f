//! Running cargo, and the tests.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::{guests, root, tools};

/// Runs cargo in `dir` with some variables set; an error if it fails.
pub fn cargo(
    dir: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    variables: &[(&str, &OsStr)],
) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(dir);
    // This run is itself under cargo, whose own settings must not reach another workspace.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_TARGET_DIR");
    command.envs(variables.iter().copied());
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo ended with {status}");
    }
    Ok(())
}

/// Every test: guests natively and as components, then the host's.
pub fn test(args: &[String]) -> anyhow::Result<()> {
    guests::build()?;
    cargo(&root().join("tenants"), ["test", "--quiet", "--workspace"], &[])?;
    let mut test = vec!["test".to_owned(), "--workspace".to_owned()];
    test.extend_from_slice(args);
    match tools::mosquitto() {
        Ok(path) => cargo(&root(), test, &[("TIDEGATE_MOSQUITTO", path.as_os_str())]),
        Err(error) => {
            eprintln!("\nSKIPPING every test against a real broker: {error:#}\n");
            cargo(&root(), test, &[("TIDEGATE_WITHOUT_MOSQUITTO", OsStr::new("1"))])
        }
    }
}
