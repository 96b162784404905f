//! Builds the guests that are not written in Rust, each with the tools that its language
//! needs, and only when what it is made of has changed.

use std::{
    env,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::{root, run::cargo, tools};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Language {
    Python,
    Javascript,
    C,
    Go,
}

impl Language {
    /// Also the name of its folder in `tenants/`.
    pub fn name(self) -> &'static str {
        match self {
            Language::Python => "python",
            Language::Javascript => "javascript",
            Language::C => "c",
            Language::Go => "go",
        }
    }
}

/// A component in the making.
struct Guest {
    language: Language,
    source: PathBuf,
    /// WIT packages, each after those that it needs.
    wit: Vec<PathBuf>,
    world: String,
    to: PathBuf,
}

/// The program that makes bindings and components, a workspace of its own.
const BINDINGS: &str = "xtask/bindings";
const AIO: &str = "wit/wasm-graph-processor";

/// What `tenants/` has: language, name, further WIT, and the world.
const GUESTS: [(Language, &str, &[&str], &str); 5] = [
    (
        Language::Python,
        "operators.py",
        &[AIO, "tenants/python/operators.wit"],
        "tidegate:operators-in-python/every-kind",
    ),
    (
        Language::Javascript,
        "operators.js",
        &[AIO, "tenants/javascript/operators.wit"],
        "tidegate:operators-in-javascript/operators",
    ),
    (Language::C, "near.c", &[AIO], "filter-impl"),
    (Language::C, "humidity.c", &["wit/map-custom"], "custom-provider"),
    (Language::Go, "geohash.go", &[AIO], "map-impl"),
];

/// Builds all of them into `tenants/target/LANGUAGE/`, those of one language beside those of
/// the others. Languages whose tools cannot be had come back with the reason; a guest that
/// does not build is an error.
pub fn build() -> anyhow::Result<Vec<(Language, anyhow::Error)>> {
    let languages = Language::value_variants();
    thread::scope(|scope| {
        let builds: Vec<_> = languages
            .iter()
            .map(|&language| (language, scope.spawn(move || build_all_of(language))))
            .collect();
        let mut missing = Vec::new();
        for (language, build) in builds {
            missing.extend(build.join().expect("it does not panic")?.map(|error| (language, error)));
        }
        Ok(missing)
    })
}

/// What has changed since it was built; the reason, if there is nothing to build it with.
fn build_all_of(language: Language) -> anyhow::Result<Option<anyhow::Error>> {
    for guest in GUESTS.iter().filter(|guest| guest.0 == language).map(Guest::of) {
        let (stamp, digest) = (guest.to.with_extension("stamp"), guest.digest()?);
        if guest.to.is_file() && fs::read_to_string(&stamp).is_ok_and(|built| built == digest) {
            continue;
        }
        if let Err(error) = tools::of(language) {
            return Ok(Some(error));
        }
        guest.build()?;
        fs::write(stamp, digest)?;
    }
    Ok(None)
}

/// Builds one component of somebody's own.
pub fn component(
    language: Language,
    source: PathBuf,
    wit: Vec<PathBuf>,
    world: String,
    to: PathBuf,
) -> anyhow::Result<()> {
    tools::of(language)?;
    let wit = if wit.is_empty() { vec![root().join(AIO)] } else { wit };
    Guest { language, source, wit, world, to }.build()
}

impl Guest {
    fn of(&(language, name, wit, world): &(Language, &str, &[&str], &str)) -> Self {
        let tenants = root().join("tenants");
        Guest {
            language,
            source: tenants.join(language.name()).join(name),
            wit: wit.iter().map(|path| root().join(path)).collect(),
            world: world.to_owned(),
            to: tenants.join("target").join(language.name()).join(name).with_extension("wasm"),
        }
    }

    /// Of all that it is made of and with.
    fn digest(&self) -> anyhow::Result<String> {
        let mut hasher = DefaultHasher::new();
        let mut inputs = self.wit.clone();
        inputs.push(self.source.parent().context("in a folder")?.to_owned());
        inputs.push(root().join("xtask/src/languages.rs"));
        if matches!(self.language, Language::C | Language::Go) {
            inputs.push(root().join(BINDINGS));
        }
        for input in inputs {
            hash(&input, &mut hasher).with_context(|| input.display().to_string())?;
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    fn build(&self) -> anyhow::Result<()> {
        eprintln!("building {}", self.source.display());
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Beside the component, and gone once it is there.
        let scratch = self.to.with_extension("build");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        if let Some(folder) = folder {
            fs::create_dir_all(folder)?;
        }
        match self.language {
            Language::Python => self.python(&scratch),
            Language::Javascript => self.javascript(&scratch),
            Language::C => self.c(&scratch),
            Language::Go => self.go(&scratch),
        }
        .with_context(|| self.source.display().to_string())?;
        Ok(fs::remove_dir_all(scratch)?)
    }

    /// From a copy of its folder, in which Python leaves what it has compiled.
    fn python(&self, scratch: &Path) -> anyhow::Result<()> {
        let sources = scratch.join("sources");
        copy_into(self.source.parent().context("in a folder")?, &sources)?;
        let mut compiler = tools::componentize_py();
        compiler.arg("--quiet");
        for path in &self.wit {
            compiler.arg("--wit-path").arg(path);
        }
        compiler.args(["--world", &self.world, "componentize", "--python-path"]);
        compiler.arg(sources);
        run(compiler.arg(self.source.file_stem().context("a file")?).arg("--output").arg(&self.to))
    }

    /// The compiler wants one folder: the package with the world, and the others in `deps`.
    fn javascript(&self, scratch: &Path) -> anyhow::Result<()> {
        let (main, others) = self.wit.split_last().context("no WIT")?;
        let wit = scratch.join("wit");
        copy_into(main, &wit)?;
        for other in others {
            copy_into(other, &wit.join("deps").join(other.file_stem().context("a package")?))?;
        }
        let mut compiler = tools::componentize_js();
        // The host has no `wasi:http`.
        compiler.args(["--disable", "http", "fetch-event", "--wit"]).arg(wit);
        run(compiler.args(["--world-name", &self.world, "--out"]).arg(&self.to).arg(&self.source))
    }

    fn c(&self, scratch: &Path) -> anyhow::Result<()> {
        self.bindings("c", &[scratch])?;
        let module = scratch.join("module.wasm");
        let mut compiler = tools::zig();
        compiler.args(["cc", "-target", "wasm32-wasi", "-mexec-model=reactor"]);
        // A small stack keeps what the host must clear together.
        compiler.args(["-Os", "-Wall", "-Wextra", "-Wl,-z,stack-size=65536", "-Wl,--strip-all", "-I"]);
        compiler.arg(scratch).arg(&self.source).arg("-o").arg(&module);
        // WORLD.c, and WORLD_component_type.o.
        for entry in fs::read_dir(scratch)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "c" || extension == "o") {
                compiler.arg(path);
            }
        }
        run(&mut compiler)?;
        self.bindings("component", &[&module, &self.to])
    }

    fn go(&self, scratch: &Path) -> anyhow::Result<()> {
        self.bindings("go", &[scratch])?;
        // The package that the bindings import comes in the source of their generator.
        copy_into(&package_of("wit-bindgen-go")?.join("src/pkg"), &scratch.join("pkg"))?;
        let manifest = fs::read_to_string(scratch.join("pkg/go.mod"))?;
        let version = manifest.lines().find(|line| line.starts_with("go ")).context("a version of Go")?;
        let package = "go.bytecodealliance.org/pkg";
        fs::write(
            scratch.join("go.mod"),
            format!(
                "module wit_component\n{version}\nrequire {package} v0.0.0\nreplace {package} => ./pkg\n"
            ),
        )?;
        let text = fs::read_to_string(&self.source)?;
        let clause = text.lines().find_map(|line| line.strip_prefix("package "));
        let folder = scratch.join(clause.context("no line `package NAME`")?.trim());
        fs::create_dir_all(&folder)?;
        fs::copy(&self.source, folder.join("operator.go"))?;
        let module = scratch.join("module.wasm");
        let mut compiler = tools::go();
        compiler.current_dir(scratch).envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
        // What is allocated before Go has started comes from a function that Go keeps to itself.
        compiler.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w -checklinkname=0", "-o"]);
        run(compiler.arg(std::path::absolute(&module)?).arg("."))?;
        self.bindings("component", &[&module, &self.to])
    }

    /// Runs the program of that name, which is compiled when it is first needed.
    fn bindings(&self, command: &str, paths: &[&Path]) -> anyhow::Result<()> {
        let mut args: Vec<OsString> = ["run", "--quiet", "--", &self.world].map(Into::into).into();
        for path in &self.wit {
            args.push(std::path::absolute(path)?.into());
        }
        args.push(command.into());
        for path in paths {
            args.push(std::path::absolute(path)?.into());
        }
        let target = root().join("target/bindings");
        cargo(&root().join(BINDINGS), args, &[("CARGO_TARGET_DIR", target.as_os_str())])
    }
}

/// Where the source of a package that this workspace uses is.
fn package_of(name: &str) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version", "1", "--offline"]).current_dir(root().join(BINDINGS));
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("a list")?;
    let package =
        packages.iter().find(|package| package["name"] == name).context("it is in the lock file")?;
    let manifest = package["manifest_path"].as_str().context("a path")?;
    Ok(Path::new(manifest).parent().context("in a folder")?.to_owned())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("{} ended with {status}", program.display());
    }
    Ok(())
}

/// Every file that a path leads to, in order.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries.iter().map(|entry| files(entry)).collect::<anyhow::Result<Vec<_>>>()?.concat())
}

fn hash(path: &Path, hasher: &mut DefaultHasher) -> anyhow::Result<()> {
    for file in files(path)? {
        (file.strip_prefix(path)?, fs::read(&file)?).hash(hasher);
    }
    Ok(())
}

/// A file, or what is in a folder.
fn copy_into(from: &Path, to: &Path) -> anyhow::Result<()> {
    for file in files(from)? {
        let place = match file.strip_prefix(from)? {
            rest if rest.as_os_str().is_empty() => to.join(from.file_name().context("a file")?),
            rest => to.join(rest),
        };
        fs::create_dir_all(place.parent().context("below the folder")?)?;
        fs::copy(&file, place).with_context(|| file.display().to_string())?;
    }
    Ok(())
}
