//! The process that runs one tenant's models, `tidegate infer`: reads frames from
//! standard input and writes answers to standard output, under limits that it sets for
//! itself first. Single-threaded, so that a request's CPU time is its own.

/// The hidden subcommand that turns the binary into this process.
pub const SUBCOMMAND: &str = "infer";

/// Serves requests until standard input ends. `memory_bytes_max` is what models may have
/// over what the process takes itself, `tensor_bytes_max` what one answer may.
#[cfg(not(feature = "wasi-nn"))]
pub fn child_main(_memory_bytes_max: u64, _tensor_bytes_max: u64) -> std::io::Result<i32> {
    Err(std::io::Error::other(format!("this build has no `{}`", super::FEATURE)))
}

#[cfg(feature = "wasi-nn")]
pub use serving::child_main;

#[cfg(feature = "wasi-nn")]
mod serving {
    use std::{
        collections::HashMap,
        io::{self, Read as _, Write as _},
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use bytes::Bytes;
    use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};

    use crate::inference::{
        InferenceError, InferenceErrorKind,
        frame::{Answer, Ask, encode_answer},
        onnx::Graph,
    };

    /// Serves requests until standard input ends. `memory_bytes_max` is what models may
    /// have over what the process takes itself, `tensor_bytes_max` what one answer may.
    pub fn child_main(memory_bytes_max: u64, tensor_bytes_max: u64) -> io::Result<i32> {
        bound(memory_bytes_max)?;
        // The host is told in the answer.
        std::panic::set_hook(Box::new(|_| {}));
        let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
        let mut served = Served { graphs: HashMap::new(), tensor_bytes_max };
        // An empty frame: from here on it reads.
        stdout.write_all(&0_u32.to_le_bytes())?;
        stdout.flush()?;
        loop {
            let mut len = [0; 4];
            match stdin.read_exact(&mut len) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => read?,
            }
            let mut body = vec![0; u32::from_le_bytes(len) as usize];
            stdin.read_exact(&mut body)?;
            let (id, ask) = Ask::decode(body.into()).map_err(io::Error::other)?;
            if let Some(answer) = served.answer(ask) {
                stdout.write_all(&encode_answer(id, &answer))?;
                stdout.flush()?;
            }
        }
    }

    fn bound(memory_bytes_max: u64) -> io::Result<()> {
        // A host that is killed takes it along, whatever it is at.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
        let pages = std::fs::read_to_string("/proc/self/statm")?;
        let pages = pages.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
        let own = pages.ok_or_else(|| io::Error::other("/proc/self/statm has no number"))?
            * rustix::param::page_size() as u64;
        setrlimit(Resource::As, limit(own + memory_bytes_max))?;
        setrlimit(Resource::Core, limit(0))?;
        // Nothing is opened from here on; a model may name files.
        setrlimit(Resource::Nofile, limit(3))?;
        nice(10)?;
        Ok(())
    }

    struct Served {
        graphs: HashMap<u32, Graph>,
        tensor_bytes_max: u64,
    }

    impl Served {
        fn answer(&mut self, ask: Ask) -> Option<Answer> {
            match ask {
                Ask::Load { model, bytes } => Some(self.load(model, &bytes)),
                Ask::Run { model, inputs } => {
                    let Some(graph) = self.graphs.get_mut(&model) else {
                        return Some(Err(InferenceError::new(
                            InferenceErrorKind::NotFound,
                            "there is no such model",
                        )));
                    };
                    let most = self.tensor_bytes_max;
                    Some(caught(|| graph.run(inputs)).and_then(|outputs| {
                        let bytes: u64 = outputs.iter().map(|(_, tensor)| tensor.data().len() as u64).sum();
                        if bytes <= most {
                            return Ok(outputs);
                        }
                        let text =
                            format!("outputs of {bytes} bytes, and policy's `inference.model` allows {most}");
                        Err(InferenceError::new(InferenceErrorKind::TooLarge, text))
                    }))
                }
                Ask::Drop { model } => {
                    self.graphs.remove(&model);
                    None
                }
            }
        }

        fn load(&mut self, model: u32, bytes: &Bytes) -> Answer {
            let graph = caught(|| Graph::load(bytes))?;
            self.graphs.insert(model, graph);
            Ok(Vec::new())
        }
    }

    /// The library asserts what a sound model keeps to; this one is anyone's.
    fn caught<T>(body: impl FnOnce() -> Result<T, InferenceError>) -> Result<T, InferenceError> {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(InferenceError::new(InferenceErrorKind::RuntimeError, format!("the model fails: {text}")))
        })
    }
}
