//! `Process`: one process that runs a tenant's models, and `Processes`, where those of a
//! host run. Starts it, talks with it in frames, and says how it ended; what is asked is
//! the worker's.

use std::{
    future::pending,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use super::{
    InferenceLimits,
    child::SUBCOMMAND,
    frame::{self, Answer, Ask},
};

/// Processes of one host at once: each has the memory that its policy allows.
const PROCESSES_MAX: usize = 64;

/// How long a process may take until it reads its first request: a busy machine starts
/// one in some tenths of a second.
const START_WITHIN: Duration = Duration::from_secs(30);

/// Where the processes of all tenants are started and talked with: a thread of its own,
/// from the first of them on. It ends with this, and they with it.
#[derive(Debug)]
pub struct Processes {
    /// This binary, if it can be run again.
    program: Option<PathBuf>,
    runtime: OnceLock<Option<Runtime>>,
    room: Arc<Semaphore>,
}

impl Processes {
    /// `program infer` is what runs models; without a program nothing does.
    pub fn new(program: Option<PathBuf>) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(PROCESSES_MAX));
        Arc::new(Processes { program, runtime: OnceLock::new(), room })
    }

    /// Where nothing runs, once for all.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Processes>> = LazyLock::new(|| Processes::new(None));
        NONE.clone()
    }

    /// Runs a tenant's worker on the thread; the error says why not.
    pub(super) fn spawn(&self, worker: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
        if self.program.is_none() {
            return Err("there is no process for models here".to_owned());
        }
        let runtime = self.runtime.get_or_init(|| {
            // One thread, which lives as long as this: the system ends processes whose
            // parent thread has ended.
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder
                .worker_threads(1)
                .max_blocking_threads(1)
                .thread_name("inference")
                .enable_all()
                .build()
                .ok()
        });
        let runtime = runtime.as_ref().ok_or("the thread for models does not start")?;
        runtime.spawn(worker);
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Whoever drops it may be a task itself, and must not wait.
        if let Some(runtime) = self.runtime.take().flatten() {
            runtime.shutdown_background();
        }
    }
}

/// Why a process did not answer. It is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("the host runs {PROCESSES_MAX} processes for models already")]
    TooMany,
    #[error("the process for models does not start: {0}")]
    Start(String),
    #[error("it took longer than {limit:?}, policy's `inference.time`")]
    TooLong { limit: Duration },
    #[error(
        "the process that runs the tenant's models has ended{}: perhaps it needed more memory than {memory_bytes_max} bytes, policy's `inference.memory`", status.map_or(String::new(), |it| format!(" ({it})"))
    )]
    Died { status: Option<ExitStatus>, memory_bytes_max: u64 },
    #[error("the process that runs the tenant's models gave an answer that is none")]
    BadAnswer,
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    limits: InferenceLimits,
    /// Of the last request.
    id: u32,
    _room: OwnedSemaphorePermit,
}

impl Process {
    /// Returns once it reads requests.
    pub async fn start(processes: &Processes, limits: InferenceLimits) -> Result<Self, ProcessError> {
        let room = processes.room.clone().try_acquire_owned().map_err(|_| ProcessError::TooMany)?;
        let start = |error: io::Error| ProcessError::Start(error.to_string());
        let program = processes.program.as_ref().expect("without one there are no workers");
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .args([limits.memory_bytes_max, limits.model_bytes_max].map(|bytes| bytes.to_string()))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a model makes it say is nobody's to read.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut process = Process { child, stdin, stdout, limits, id: 0, _room: room };
        match timeout(START_WITHIN, process.read()).await {
            Ok(Ok(_ready)) => Ok(process),
            Ok(Err(error)) => Err(start(error)),
            Err(_) => Err(ProcessError::Start(format!("it is not ready within {START_WITHIN:?}"))),
        }
    }

    /// Asks and waits for the answer, within the CPU time that one request may take.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer, ProcessError> {
        self.id = self.id.wrapping_add(1);
        let (id, pid, limit, began) = (self.id, self.child.id(), self.limits.time_max, self.cpu_time());
        let talk = async {
            self.write(ask).await?;
            self.read().await
        };
        let told = tokio::select! {
            told = talk => told,
            () = overdue(pid, began, limit) => return Err(ProcessError::TooLong { limit }),
        };
        let Ok(body) = told else { return Err(self.died().await) };
        match frame::decode_answer(body) {
            Ok((answered, answer)) if answered == id => Ok(answer),
            _ => Err(ProcessError::BadAnswer),
        }
    }

    /// Says something that has no answer.
    pub async fn tell(&mut self, ask: &Ask) -> Result<(), ProcessError> {
        match timeout(self.limits.time_max, self.write(ask)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(self.died().await),
        }
    }

    async fn write(&mut self, ask: &Ask) -> io::Result<()> {
        let (head, rest) = ask.encode(self.id);
        self.stdin.write_all(&head).await?;
        self.stdin.write_all(&rest).await?;
        self.stdin.flush().await
    }

    /// The body of a frame, which is no larger than tensors may be.
    async fn read(&mut self) -> io::Result<Bytes> {
        let len = self.stdout.read_u32_le().await?;
        if u64::from(len) > self.limits.model_bytes_max + frame::OVERHEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; len as usize];
        self.stdout.read_exact(&mut body).await?;
        Ok(body.into())
    }

    /// It is ended, if it has not ended itself.
    async fn died(&mut self) -> ProcessError {
        // One that has closed its end is about to end.
        let status = match timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => None,
        };
        ProcessError::Died { status, memory_bytes_max: self.limits.memory_bytes_max }
    }

    /// Whether it has ended while nobody asked it anything.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// CPU time that it has used; zero once it has ended.
    pub fn cpu_time(&self) -> Duration {
        self.child.id().and_then(cpu_time_of).unwrap_or_default()
    }
}

/// CPU time of a process, all threads together.
fn cpu_time_of(pid: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets; user and system time are the 14th and 15th.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Ready once a process has used so much CPU time since `began`. Wall time bounds what
/// CPU time cannot: one that is stopped. On a busy machine one that works takes several
/// times its CPU time.
async fn overdue(pid: Option<u32>, began: Duration, limit: Duration) {
    let Some(pid) = pid else { return pending().await };
    let end = Instant::now() + 4 * limit + Duration::from_secs(5);
    let mut left = limit;
    while !left.is_zero() && Instant::now() < end {
        sleep_until(end.min(Instant::now() + left)).await;
        // One that has ended says so itself.
        let Some(used) = cpu_time_of(pid) else { return pending().await };
        left = limit.saturating_sub(used.saturating_sub(began));
    }
}
