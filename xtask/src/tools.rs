//! Programs that tests and benches run beside the host, fetched without root into
//! `target/tools`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::root;

/// Debian's packages of the broker and of the libraries that a small system lacks.
/// The first two must come; which of the others exist differs between releases.
const MOSQUITTO_PACKAGES: [&str; 11] = [
    "mosquitto",
    "mosquitto-clients",
    "libmosquitto1",
    "libcjson1",
    "libdlt2",
    "libwrap0",
    "libwebsockets17",
    "libev4",
    "libuv1",
    "libnsl2",
    "libtirpc3",
];

/// How to get it by hand.
const MOSQUITTO_INSTALL: &str = "sudo apt-get install mosquitto mosquitto-clients";

/// A mosquitto that runs: `TIDEGATE_MOSQUITTO`, one that was fetched before, one on
/// the PATH, or one unpacked from Debian's packages now.
pub fn mosquitto() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_MOSQUITTO") {
        return Ok(path.into());
    }
    let folder = root().join("target/tools/mosquitto");
    let fetched = folder.join("usr/sbin/mosquitto");
    if runs(&fetched) {
        return Ok(fetched);
    }
    if let Some(installed) = on_path("mosquitto").filter(|path| runs(path)) {
        return Ok(installed);
    }
    fetch_mosquitto(&folder)
        .and_then(|()| if runs(&fetched) { Ok(()) } else { bail!("the unpacked mosquitto does not run") })
        .with_context(|| format!("cannot fetch mosquitto; install it with `{MOSQUITTO_INSTALL}`"))?;
    Ok(fetched)
}

/// What a program that was unpacked rather than installed needs in its
/// `LD_LIBRARY_PATH`, if that is how it came.
pub fn library_path(program: &Path) -> Option<String> {
    let root = program.ancestors().nth(3).filter(|root| root.parent().is_some())?;
    let folders = ["usr/lib", "lib"].map(|folder| fs::read_dir(root.join(folder)));
    let folders = folders.into_iter().flatten().flatten().flatten().map(|entry| entry.path());
    let folders: Vec<String> =
        folders.filter(|path| path.is_dir()).map(|path| path.display().to_string()).collect();
    (!folders.is_empty()).then(|| folders.join(":"))
}

fn fetch_mosquitto(folder: &Path) -> anyhow::Result<()> {
    eprintln!("fetching mosquitto");
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (i, package) in MOSQUITTO_PACKAGES.iter().enumerate() {
        let mut download = Command::new("apt-get");
        download.args(["download", "--quiet", package]).current_dir(folder).stdout(Stdio::null());
        if i >= 2 {
            download.stderr(Stdio::null());
        }
        let status = download.status().context("cannot run apt-get, which Debian and its kin have")?;
        if !status.success() && i < 2 {
            bail!("`apt-get download {package}` failed; without package lists, `sudo apt-get update` first");
        }
    }
    for file in fs::read_dir(folder)?.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            let status =
                Command::new("dpkg").arg("-x").arg(&file).arg(folder).status().context("cannot run dpkg")?;
            if !status.success() {
                bail!("cannot unpack {}", file.display());
            }
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

/// Whether the program is there with all its libraries: mosquitto ends with 3 after
/// printing its help.
fn runs(program: &Path) -> bool {
    let mut help = Command::new(program);
    help.arg("-h").stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(path) = library_path(program) {
        help.env("LD_LIBRARY_PATH", path);
    }
    // A program that lacks a library ends with 127.
    program.is_file() && help.status().is_ok_and(|status| status.code().is_some_and(|code| code < 100))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    // Debian installs servers where only root's PATH leads.
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
