//! The worker of one tenant: takes its guests' requests one by one to its process, which
//! it starts when there is something to ask and ends when there is nothing any more.
//! A process that has ended is followed by another, which gets the models again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    Door, Entry, InferenceError, InferenceErrorKind, Model, Next, Request,
    frame::{Answer, Ask},
    process::{Process, ProcessError, Processes},
};

/// A process that nobody asks anything for so long is ended. Starting another and loading
/// what it had takes some tenths of a second.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long nothing is started after the first process that a model has ended, and after
/// many in a row.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Works until the tenant is gone, or idle for long.
pub async fn work(door: Arc<Door>, processes: Arc<Processes>) {
    let mut worker = Worker { door, processes, running: None, pause: Duration::ZERO };
    loop {
        let Ok(next) = timeout(IDLE_MAX, worker.door.next()).await else {
            if worker.door.leave() {
                return worker.end();
            }
            continue;
        };
        match next {
            Next::Close => {
                worker.door.abandon();
                return worker.end();
            }
            Next::Drop(models) => worker.forget(models).await,
            Next::Request(request) => {
                worker.serve(request).await;
                worker.door.close_one();
            }
        }
    }
}

struct Worker {
    door: Arc<Door>,
    processes: Arc<Processes>,
    running: Option<Running>,
    /// Before the next process is started.
    pause: Duration,
}

struct Running {
    process: Process,
    loaded: HashSet<u32>,
    /// CPU time that is counted already.
    counted: Duration,
}

impl Worker {
    /// Whoever asked may go: what was not begun then is not, and what was ends with its
    /// process.
    async fn serve(&mut self, request: Request) {
        match request {
            Request::Load { reply, .. } if reply.is_closed() => {}
            Request::Compute { reply, .. } if reply.is_closed() => {}
            Request::Load { bytes, mut reply } => {
                let result = while_awaited(&mut reply, self.load(bytes)).await;
                self.give(reply, result);
            }
            Request::Compute { entry, inputs, mut reply } => {
                let result = while_awaited(&mut reply, self.compute(entry, inputs)).await;
                self.give(reply, result);
            }
        }
    }

    /// Without a result the process is in the middle of what nobody waits for.
    fn give<T>(&mut self, reply: oneshot::Sender<T>, result: Option<T>) {
        match result {
            // Nobody may be there to take it by now; then it is dropped.
            Some(result) => _ = reply.send(result),
            None => self.end(),
        }
    }

    async fn load(&mut self, bytes: bytes::Bytes) -> Result<Model, InferenceError> {
        let model = self.door.keep(bytes)?;
        self.running_with(&model.entry).await?;
        Ok(model)
    }

    async fn compute(&mut self, entry: Arc<Entry>, inputs: Vec<super::NamedTensor>) -> Answer {
        self.running_with(&entry).await?;
        self.ask(&Ask::Run { model: entry.id, inputs }).await
    }

    /// There is a process, and it has the model.
    async fn running_with(&mut self, entry: &Arc<Entry>) -> Result<(), InferenceError> {
        if self.running.as_mut().is_some_and(|running| running.process.has_ended()) {
            self.door.stats.ended.add(1);
            self.running = None;
        }
        if self.running.is_none() {
            sleep(self.pause).await;
            let process = Process::start(&self.processes, self.door.limits).await.map_err(told)?;
            self.door.stats.processes.add(1);
            self.running = Some(Running { process, loaded: HashSet::new(), counted: Duration::ZERO });
        }
        if self.running.as_ref().is_some_and(|running| running.loaded.contains(&entry.id)) {
            return Ok(());
        }
        self.ask(&Ask::Load { model: entry.id, bytes: entry.bytes.clone() }).await?;
        self.running.as_mut().expect("it answered").loaded.insert(entry.id);
        Ok(())
    }

    /// Asks the process that runs. Without an answer it does not run any more.
    async fn ask(&mut self, ask: &Ask) -> Answer {
        let running = self.running.as_mut().expect("it was started");
        let began = Instant::now();
        match running.process.ask(ask).await {
            Ok(answer) => {
                // A model that only loads may end the process when it runs, each time.
                if matches!(ask, Ask::Run { .. }) {
                    self.pause = Duration::ZERO;
                }
                self.count();
                answer
            }
            Err(error) => {
                self.pause = (2 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
                self.door.stats.ended.add(1);
                if let ProcessError::Died { .. } = error {
                    // What it used until it was gone is not known any more.
                    self.door.charge_cpu(began.elapsed().as_millis() as u64);
                }
                self.end();
                Err(told(error))
            }
        }
    }

    async fn forget(&mut self, models: Vec<u32>) {
        for model in models {
            let Some(running) = &mut self.running else { return };
            if running.loaded.remove(&model) && running.process.tell(&Ask::Drop { model }).await.is_err() {
                self.end();
            }
        }
    }

    /// Counts what the process has used since it was counted last.
    fn count(&mut self) {
        let Some(running) = &mut self.running else { return };
        let used = running.process.cpu_time();
        let ms = used.saturating_sub(running.counted).as_millis() as u64;
        self.door.charge_cpu(ms);
        running.counted += Duration::from_millis(ms);
    }

    fn end(&mut self) {
        self.count();
        // Killed, and taken note of by the runtime.
        self.running = None;
    }
}

/// The result, if somebody waits for it until then.
async fn while_awaited<T>(reply: &mut oneshot::Sender<T>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = work => Some(result),
        () = reply.closed() => None,
    }
}

/// What it means to the guest.
fn told(error: ProcessError) -> InferenceError {
    let kind = match error {
        ProcessError::TooLong { .. } => InferenceErrorKind::Timeout,
        ProcessError::TooMany
        | ProcessError::Start(_)
        | ProcessError::Died { .. }
        | ProcessError::BadAnswer => InferenceErrorKind::RuntimeError,
    };
    InferenceError::new(kind, error.to_string())
}
