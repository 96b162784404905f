//! Compiling: once by digest, in a child process with limits of its own, into an
//! authenticated `.cwasm` in a private folder. The only place that names the
//! compiler, and one of the two that may use `unsafe`: loading what we compiled.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use rand::RngCore as _;
use wasmtime::{Engine, component::Component};

use crate::{
    guest::{
        component::Digest,
        compose::Fusion,
        engine::{self, Engines, Tuning},
    },
    resource::{CompileLimits, EngineKind, PerEngine},
    stats::ComponentStats,
};

/// The hidden subcommand that turns the binary into the compile process.
pub const SUBCOMMAND: &str = "compile-component";

/// What compiles: the same binary run again, or this process.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// `program compile-component`, with limits on CPU time and memory.
    Child { program: PathBuf },
    /// In this process, without limits: for benches and simulations of our own
    /// components, whose process is not the host's binary.
    InProcess,
}

/// What is compiled.
#[derive(Clone, Copy, Debug)]
pub enum Code<'a> {
    Whole(&'a [u8]),
    /// Two components that are fused first, in the compile process as well.
    Fused {
        map: &'a [u8],
        provider: &'a [u8],
    },
}

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("compiling took longer than {limit:?}, policy's `component.compileTime`")]
    TooLong { limit: Duration },
    #[error("the component does not compile: {cause}")]
    Refused { cause: String },
    #[error(
        "the compile process ended with {status}: it may have needed more than {memory_bytes_max} bytes of memory, \
         policy's `component.compileMemory`"
    )]
    Died { status: ExitStatus, memory_bytes_max: u64 },
    #[error("cannot run the compile process")]
    Spawn(#[source] io::Error),
    #[error("cannot keep the compiled component")]
    Store(#[source] io::Error),
}

/// Why a compiled component is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("{} cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} was not written by this host", path.display())]
    NotAuthentic { path: PathBuf },
    #[error("{} does not load: {cause}", path.display())]
    Load { path: PathBuf, cause: String },
}

/// Compiled components below one folder, which only this host's user can read.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    compiler: Compiler,
    stats: Arc<ComponentStats>,
    tunings: PerEngine<Tuning>,
    /// Tells apart files of other versions and settings of the engines, and other codes.
    hashes: PerEngine<u64>,
    /// Of all files, those of other versions too.
    bytes: Arc<AtomicU64>,
}

impl Cache {
    /// Opens the folder, making it and its key if there is none.
    pub fn open(dir: &Path, engines: &Engines, compiler: Compiler) -> io::Result<Self> {
        if !dir.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let key = read_or_make_key(&dir.join("key"))?;
        let (stats, tunings) = (Arc::default(), PerEngine::by(|kind| engines.tuning(kind)));
        let hashes = PerEngine::by(|kind| hash_of(engines.of(kind)));
        let bytes = files(dir)?.iter().map(|file| file.bytes).sum();
        let bytes = Arc::new(AtomicU64::new(bytes));
        Ok(Cache { dir: dir.to_owned(), key, compiler, stats, tunings, hashes, bytes })
    }

    /// What components for an engine are compiled for.
    pub fn tuning(&self, engine: EngineKind) -> Tuning {
        *self.tunings.of(engine)
    }

    /// Whether the component was compiled before, for this engine or one with its settings.
    pub fn has(&self, engine: EngineKind, digest: Digest) -> bool {
        let (path, mac_path) = self.paths(engine, digest);
        path.exists() && mac_path.exists()
    }

    /// Compiles `code`, whose digest it is, unless that was done before.
    pub fn compile(
        &self,
        engine: EngineKind,
        digest: Digest,
        code: Code<'_>,
        limits: CompileLimits,
    ) -> Result<(), CompileError> {
        if self.has(engine, digest) {
            return Ok(());
        }
        let (path, mac_path) = self.paths(engine, digest);
        let tuning = self.tuning(engine);
        self.stats.compiles.add(1);
        let compiled = match &self.compiler {
            Compiler::InProcess => {
                precompile(tuning, code).map_err(|cause| CompileError::Refused { cause })?
            }
            Compiler::Child { program } => compile_in_child(program, tuning, code, limits)?,
        };
        let mac = *self.mac(engine, digest, &compiled).as_bytes();
        self.bytes.fetch_add(compiled.len() as u64, Ordering::Relaxed);
        // The proof last: a file without one counts as absent.
        replace(&path, &compiled).and_then(|()| replace(&mac_path, &mac)).map_err(CompileError::Store)
    }

    /// Maps a compiled component into memory, for one of the engines that this was opened
    /// with.
    pub fn load(
        &self,
        engines: &Engines,
        engine: EngineKind,
        digest: Digest,
    ) -> Result<Component, CacheError> {
        let (path, mac_path) = self.paths(engine, digest);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CacheError::Io { path, source }
        };
        let compiled = fs::read(&path).map_err(io(&path))?;
        let mac = fs::read(&mac_path).map_err(io(&mac_path))?;
        // In constant time, which only a comparison of two `Hash` is.
        let is_ours = <[u8; 32]>::try_from(mac).is_ok_and(|mac| self.mac(engine, digest, &compiled) == mac);
        if !is_ours {
            return Err(CacheError::NotAuthentic { path });
        }
        // Safe because the bytes carry our own authentication code, made when the
        // compile process gave them to us, in a folder that only our user can write.
        #[allow(unsafe_code)]
        let loaded = unsafe { Component::deserialize_file(engines.of(engine), &path) };
        self.stats.loads.add(1);
        // By this the least recently used is found; without it, it is a little older.
        let _ =
            File::options().write(true).open(&mac_path).and_then(|file| file.set_modified(SystemTime::now()));
        loaded.map_err(|error| CacheError::Load { path, cause: format!("{error:#}") })
    }

    /// Removes what was used least recently until no more than `bytes_max` is left. What is
    /// `in_use` stays; so does what is mapped into memory, whatever becomes of its file.
    pub fn sweep(
        &self,
        bytes_max: u64,
        in_use: impl Fn() -> HashSet<(EngineKind, Digest)>,
    ) -> io::Result<()> {
        // Nearly always: nobody looks into the folder.
        if self.bytes.load(Ordering::Relaxed) <= bytes_max {
            return Ok(());
        }
        let kept: HashSet<PathBuf> =
            in_use().into_iter().map(|(engine, digest)| self.paths(engine, digest).0).collect();
        let mut files = files(&self.dir)?;
        files.sort_by_key(|file| file.used_at);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files.iter().filter(|file| !kept.contains(&file.path)) {
            if bytes <= bytes_max {
                break;
            }
            // The proof first: a file without one counts as absent.
            for path in [file.path.with_extension("mac"), file.path.clone()] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            bytes -= file.bytes;
            self.stats.removals.add(1);
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// What was compiled, loaded and let go of; clones count together.
    pub fn stats(&self) -> &ComponentStats {
        &self.stats
    }

    /// The binary that compiles, unless this process does.
    pub fn program(&self) -> Option<&Path> {
        match &self.compiler {
            Compiler::Child { program } => Some(program),
            Compiler::InProcess => None,
        }
    }

    fn paths(&self, engine: EngineKind, digest: Digest) -> (PathBuf, PathBuf) {
        let stem = format!("{digest}-{:016x}", self.hashes.of(engine));
        (self.dir.join(format!("{stem}.cwasm")), self.dir.join(format!("{stem}.mac")))
    }

    fn mac(&self, engine: EngineKind, digest: Digest, compiled: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(digest.to_string().as_bytes());
        mac.update(&self.hashes.of(engine).to_le_bytes());
        mac.update(compiled);
        mac.finalize()
    }
}

/// A compiled component on disk.
struct Compiled {
    path: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

fn files(dir: &Path) -> io::Result<Vec<Compiled>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "cwasm") {
            continue;
        }
        // Another process may have removed it since.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let used = fs::metadata(path.with_extension("mac")).and_then(|mac| mac.modified());
        let used_at = used.unwrap_or(SystemTime::UNIX_EPOCH);
        files.push(Compiled { path, bytes: metadata.len(), used_at });
    }
    Ok(files)
}

/// The same for engines that load what was compiled for either.
fn hash_of(engine: &Engine) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    ("blake3", engine.precompile_compatibility_hash()).hash(&mut hasher);
    hasher.finish()
}

/// The folder's key. Of several processes that make one at once the first wins: what
/// another had authenticated with a key of its own could never be loaded again.
fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    if !path.exists() {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        let beside = write_beside(path, &key)?;
        let linked = fs::hard_link(&beside, path);
        fs::remove_file(&beside)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let key = fs::read(path)?;
    key.try_into().map_err(|_| io::Error::other(format!("{} holds no key", path.display())))
}

/// Writes beside and renames: a mapped file is never changed.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::rename(write_beside(path, bytes)?, path)
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let beside = path.with_extension(format!("{:016x}.tmp", rand::rng().next_u64()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(beside)
}

/// Compiles in this process; the text says what is wrong with the component.
fn precompile(tuning: Tuning, code: Code<'_>) -> Result<Vec<u8>, String> {
    let engine = engine::compiling(tuning).map_err(|error| error.to_string())?;
    let bytes = match code {
        Code::Whole(bytes) => Cow::Borrowed(bytes),
        Code::Fused { map, provider } => {
            let fusion = Fusion::check(map, provider).map_err(|error| error.to_string())?;
            Cow::Owned(fusion.encode(map, provider).map_err(|error| error.to_string())?)
        }
    };
    engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"))
}

fn compile_in_child(
    program: &Path,
    tuning: Tuning,
    code: Code<'_>,
    CompileLimits { time_max, memory_bytes_max }: CompileLimits,
) -> Result<Vec<u8>, CompileError> {
    let (first, second) = match code {
        Code::Whole(bytes) => (bytes, None),
        Code::Fused { map, provider } => (map, Some(provider)),
    };
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(tuning.name())
        .arg(time_max.as_millis().max(1).to_string())
        .arg(memory_bytes_max.to_string())
        .args(second.map(|_| first.len().to_string()))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CompileError::Spawn)?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // Wall time bounds what a limit on CPU time cannot: a child that is stopped. On a
    // busy machine one that works takes several times its CPU time.
    let deadline = Instant::now() + 4 * time_max + Duration::from_secs(5);
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            // A child that dies early closes the pipe; its status tells why.
            if let Some(stdin) = stdin.take().as_mut() {
                let _ = stdin.write_all(first).and_then(|()| stdin.write_all(second.unwrap_or_default()));
            }
        });
        let stdout = scope.spawn(|| read_all(stdout));
        let stderr = scope.spawn(|| read_all(stderr));
        let status = wait_until(&mut child, deadline).map_err(CompileError::Spawn)?;
        let stdout = stdout.join().expect("reading does not panic").map_err(CompileError::Spawn)?;
        let stderr = stderr.join().expect("reading does not panic").map_err(CompileError::Spawn)?;
        Ok((status, stdout, stderr))
    })?;
    match status {
        (Some(status), stdout, _) if status.success() => Ok(stdout),
        (Some(status), _, stderr) if status.code() == Some(1) => {
            let _ = status;
            Err(CompileError::Refused { cause: String::from_utf8_lossy(&stderr).trim().to_owned() })
        }
        (Some(status), _, _) if status.code() == Some(TOO_LONG) || is_cpu_limit(status) => {
            Err(CompileError::TooLong { limit: time_max })
        }
        (Some(status), _, _) => Err(CompileError::Died { status, memory_bytes_max }),
        (None, _, _) => Err(CompileError::TooLong { limit: time_max }),
    }
}

/// Exit status of a compile process that finished, but not within its time.
const TOO_LONG: i32 = 3;

fn is_cpu_limit(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    let signal = status.signal();
    signal == Some(rustix::process::Signal::XCPU.as_raw())
        || signal == Some(rustix::process::Signal::KILL.as_raw())
}

/// Largest output that is read from the compile process, in bytes.
const COMPILED_BYTES_MAX: u64 = 512 << 20;

fn read_all(pipe: Option<impl io::Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(COMPILED_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Waits for the child; kills it at the deadline and gives `None`.
fn wait_until(child: &mut std::process::Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The compile process itself: reads a component from standard input and writes the
/// compiled one to standard output, under limits that it sets for itself first.
/// Exit status 1 with a text on standard error if the component is refused. With
/// `map_bytes` a map of so many bytes comes first, and then the provider to fuse it with.
pub fn child_main(
    tuning: &str,
    cpu_ms_max: u64,
    memory_bytes_max: u64,
    map_bytes: Option<usize>,
) -> io::Result<i32> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let tuning =
        Tuning::named(tuning).ok_or_else(|| io::Error::other(format!("no engine is named `{tuning}`")))?;
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    // The compiler may use every core for the time that one would take. The system
    // counts whole seconds; what is between them is seen at the end.
    setrlimit(Resource::Cpu, limit(cpu_ms_max.div_ceil(1_000)))?;
    setrlimit(Resource::As, limit(memory_bytes_max))?;
    setrlimit(Resource::Core, limit(0))?;
    rustix::process::nice(10)?;
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let code = match map_bytes {
        None => Code::Whole(&bytes),
        Some(len) => {
            let (map, provider) =
                bytes.split_at_checked(len).ok_or_else(|| io::Error::other("the map ends before its end"))?;
            Code::Fused { map, provider }
        }
    };
    match precompile(tuning, code) {
        Ok(_) if cpu_time() > Duration::from_millis(cpu_ms_max) => Ok(TOO_LONG),
        Ok(compiled) => {
            io::stdout().write_all(&compiled)?;
            Ok(0)
        }
        Err(cause) => {
            io::stderr().write_all(cause.as_bytes())?;
            Ok(1)
        }
    }
}

/// CPU time of this process so far, all threads together.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests;
