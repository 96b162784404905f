//! Components on disk and in memory: compiled once by digest, loaded when needed,
//! the least recently used unloaded. Between the compile process and instances.

use std::{
    fmt,
    fs::Metadata,
    hash::Hasher,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc},
};

use dashmap::DashMap;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use wasmtime::component::{Component, InstancePre};

use crate::{
    guest::{
        Contract, Operator, OperatorKind,
        compile::{Cache, CacheError},
        engine::{self, Engines},
        linker::Linkers,
        packed::Exported,
        state::GuestState,
    },
    inference::Processes,
    resource::EngineKind,
};

/// SHA-256 of a component's bytes, or of a description.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Of all that `feed` hashes. The same only within one build of the program, since
    /// so is what values hash.
    pub fn of_values(feed: impl FnOnce(&mut Feed)) -> Self {
        let mut fed = Feed(Sha256::new());
        feed(&mut fed);
        Digest(fed.0.finalize().into())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, as messages show it.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// One that was computed before.
impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }
}

/// Takes what a digest is made of.
pub struct Feed(Sha256);

impl Hasher for Feed {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is taken instead")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: [u8; 64] = {
            let mut text = [0; 64];
            text.iter_mut().zip(digits).for_each(|(place, digit)| *place = DIGITS[usize::from(digit)]);
            text
        };
        f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// A component in memory, linked once for each policy world and operator that uses it.
pub struct Loaded {
    component: Component,
    engine: EngineKind,
    /// Of the pool, that an instance takes.
    pub slots: usize,
    /// Memory that an instance starts with.
    pub memory_bytes_min: u64,
    linked: DashMap<(Arc<str>, Contract, OperatorKind), Linked>,
}

/// A component linked with what a world grants, and where it has one of its operators.
#[derive(Clone)]
pub struct Linked {
    pub pre: InstancePre<GuestState>,
    pub exported: Exported,
}

impl Loaded {
    fn new(component: Component, engine: EngineKind) -> Self {
        Loaded {
            slots: engine::slots_of(&component),
            memory_bytes_min: engine::memory_bytes_min(&component),
            component,
            engine,
            linked: DashMap::new(),
        }
    }

    /// The component linked for one of its operators.
    pub fn linked(&self, linkers: &Linkers, operator: &Operator) -> Result<Linked, LoadError> {
        let Operator { world, contract, kind, .. } = operator;
        let key = (world.clone(), *contract, *kind);
        if let Some(linked) = self.linked.get(&key) {
            return Ok(linked.clone());
        }
        let pre = linkers.link(self.engine, world, &self.component).map_err(LoadError::Link)?;
        let exported = Exported::find(&self.component, &contract.interface(*kind))
            .map_err(|error| LoadError::Link(error.to_string().into()))?;
        let linked = Linked { pre, exported };
        self.linked.insert(key, linked.clone());
        Ok(linked)
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

/// Why a deployed component cannot be loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    #[error("compiled component {digest:?} cannot be read: {cause}")]
    Cache { digest: Digest, cause: Arc<CacheError> },
    #[error("component cannot be linked: {0}")]
    Link(Arc<str>),
    #[error("the host is shutting down")]
    ShuttingDown,
}

/// Where shards get components from; clones share what is loaded.
#[derive(Clone)]
pub struct Components {
    shared: Arc<Shared>,
    door: LoadDoor,
}

struct Shared {
    engines: Engines,
    cache: Cache,
    processes: Arc<Processes>,
    /// Loaded by some shard, which holds the strong reference in its own LRU.
    alive: DashMap<(EngineKind, Digest), Weak<Loaded>>,
}

type LoadReply = oneshot::Sender<Result<Arc<Loaded>, LoadError>>;

/// What the loading thread is asked for.
enum Ask {
    Load(EngineKind, Digest, LoadReply),
    Ahead(EngineKind, Digest),
    ForgetAhead,
}

#[derive(Clone)]
enum LoadDoor {
    /// Reading files is not for a shard's thread.
    Thread(mpsc::Sender<Ask>),
    /// On the calling thread, so that a simulation is deterministic.
    Inline,
}

impl Components {
    /// Loads on a thread of its own, which ends with the last clone.
    pub fn threaded(engines: Engines, cache: Cache) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(engines, cache));
        let (tx, rx) = mpsc::channel();
        let loader = shared.clone();
        std::thread::Builder::new().name("load".into()).spawn(move || {
            let mut ahead = Vec::new();
            for ask in rx {
                match ask {
                    // A shard that went away needs no answer.
                    Ask::Load(engine, digest, reply) => drop(reply.send(loader.load(engine, digest))),
                    Ask::Ahead(engine, digest) if loader.cache.has(engine, digest) => {
                        // Whoever asks for it is told what is wrong with it.
                        ahead.extend(loader.load(engine, digest));
                    }
                    Ask::Ahead(..) => {}
                    Ask::ForgetAhead => ahead.clear(),
                }
            }
        })?;
        Ok(Components { shared, door: LoadDoor::Thread(tx) })
    }

    /// Loads on the calling thread.
    pub fn inline(engines: Engines, cache: Cache) -> Self {
        Components { shared: Arc::new(Shared::new(engines, cache)), door: LoadDoor::Inline }
    }

    pub fn engines(&self) -> &Engines {
        &self.shared.engines
    }

    pub fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// What runs models: the binary that compiles.
    pub fn processes(&self) -> &Arc<Processes> {
        &self.shared.processes
    }

    /// The component for one of the engines, from memory or from its compiled file.
    pub async fn load(&self, engine: EngineKind, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        if let Some(loaded) = self.shared.alive(engine, digest) {
            return Ok(loaded);
        }
        match &self.door {
            LoadDoor::Inline => self.shared.load(engine, digest),
            LoadDoor::Thread(door) => {
                let (tx, rx) = oneshot::channel();
                door.send(Ask::Load(engine, digest, tx)).map_err(|_| LoadError::ShuttingDown)?;
                rx.await.map_err(|_| LoadError::ShuttingDown)?
            }
        }
    }

    /// Begins to load what was compiled before and will soon be asked for; it stays in
    /// memory until [`Components::forget_ahead`].
    pub fn load_ahead(&self, engine: EngineKind, digest: Digest) {
        self.ask(Ask::Ahead(engine, digest));
    }

    /// The deploys that [`Components::load_ahead`] was for are done.
    pub fn forget_ahead(&self) {
        self.ask(Ask::ForgetAhead);
    }

    /// For a thread; loading on the calling one is never ahead.
    fn ask(&self, ask: Ask) {
        if let LoadDoor::Thread(door) = &self.door {
            // Without its thread the host ends.
            let _ = door.send(ask);
        }
    }

    /// Components in memory now.
    pub fn loaded_count(&self) -> usize {
        self.shared.alive.iter().filter(|entry| entry.value().strong_count() > 0).count()
    }
}

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components").finish_non_exhaustive()
    }
}

impl Shared {
    fn new(engines: Engines, cache: Cache) -> Self {
        let processes = Processes::new(cache.program().map(Path::to_owned));
        Shared { engines, cache, processes, alive: DashMap::new() }
    }

    fn alive(&self, engine: EngineKind, digest: Digest) -> Option<Arc<Loaded>> {
        self.alive.get(&(engine, digest)).and_then(|loaded| loaded.upgrade())
    }

    fn load(&self, engine: EngineKind, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        if let Some(loaded) = self.alive(engine, digest) {
            return Ok(loaded);
        }
        let component = self
            .cache
            .load(&self.engines, engine, digest)
            .map_err(|cause| LoadError::Cache { digest, cause: Arc::new(cause) })?;
        let loaded = Arc::new(Loaded::new(component, engine));
        self.alive.retain(|_, loaded| loaded.strong_count() > 0);
        self.alive.insert((engine, digest), Arc::downgrade(&loaded));
        Ok(loaded)
    }
}

/// Reads a component's bytes, at most `bytes_max`.
pub fn read_bytes(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    check_size(path, bytes_max)?;
    std::fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })
}

/// A component's file, which is there and not too large.
pub fn check_size(path: &Path, bytes_max: u64) -> Result<Metadata, ReadError> {
    let data = std::fs::metadata(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    if data.len() > bytes_max {
        return Err(ReadError::TooLarge { path: path.to_owned(), bytes: data.len(), bytes_max });
    }
    Ok(data)
}

/// Why a component's file gives no bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} has {bytes} bytes, and policy's `component.size` allows {bytes_max}", path.display())]
    TooLarge { path: PathBuf, bytes: u64, bytes_max: u64 },
}
