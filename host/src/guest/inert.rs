//! Inert WASI: interfaces that language runtimes import whether or not a guest uses
//! them, on nothing but the store's own data. A guest that waits suspends its fiber
//! on the shard's timers; no call here blocks, reaches the system or starts tokio.

use rand::RngCore as _;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, SocketError, StreamError, StreamResult,
    bindings::{
        cli::{
            environment, exit, stderr, stdin, stdout,
            terminal_input::{self, TerminalInput},
            terminal_output::{self, TerminalOutput},
            terminal_stderr, terminal_stdin, terminal_stdout,
        },
        clocks::{
            monotonic_clock,
            wall_clock::{self, Datetime},
        },
        random::{insecure, insecure_seed, random},
        sockets::{
            ip_name_lookup::{self, ResolveAddressStream},
            network::{self, ErrorCode, IpAddress, Network},
        },
    },
    pipe::ClosedInputStream,
    subscribe,
};
use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};

use crate::{
    clock::Instant,
    guest::{host_call::Interface, state::GuestState},
};

/// Guests read clocks in steps of a microsecond: fine enough for timestamps, too
/// coarse to time the caches that tenants share.
const CLOCK_STEP_NS: u64 = 1_000;

/// Random bytes of one host call.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

impl wall_clock::Host for GuestState {
    fn now(&mut self) -> wasmtime::Result<Datetime> {
        self.charge(Interface::Wasi, 0)?;
        let now = self.clock.wall();
        let nanoseconds = now.subsec_nanos() - now.subsec_nanos() % CLOCK_STEP_NS as u32;
        Ok(Datetime { seconds: now.as_secs(), nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<Datetime> {
        self.charge(Interface::Wasi, 0)?;
        Ok(Datetime { seconds: 0, nanoseconds: CLOCK_STEP_NS as u32 })
    }
}

impl monotonic_clock::Host for GuestState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.charge(Interface::Wasi, 0)?;
        let now_ns = self.clock.now().0;
        Ok(now_ns - now_ns % CLOCK_STEP_NS)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.charge(Interface::Wasi, 0)?;
        Ok(CLOCK_STEP_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.charge(Interface::Wasi, 0)?;
        let deadline = self.deadline(Instant(when));
        let deadline = self.table.push(deadline)?;
        subscribe(&mut self.table, deadline)
    }

    fn subscribe_duration(&mut self, duration_ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let at = self.clock.now().0.saturating_add(duration_ns);
        self.subscribe_instant(at)
    }
}

impl poll::Host for GuestState {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.charge_and_yield(Interface::Wasi).await?;
        let waiting = self.waiting();
        waiting.until(poll::Host::poll(&mut self.table, pollables)).await
    }
}

impl poll::HostPollable for GuestState {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.charge_and_yield(Interface::Wasi).await?;
        let waiting = self.waiting();
        waiting.until(poll::HostPollable::block(&mut self.table, pollable)).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.charge_and_yield(Interface::Wasi).await?;
        poll::HostPollable::ready(&mut self.table, pollable).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(&mut self.table, pollable)
    }
}

impl error::Host for GuestState {}

impl error::HostError for GuestState {
    fn to_debug_string(&mut self, error: Resource<streams::Error>) -> wasmtime::Result<String> {
        self.charge(Interface::Wasi, 0)?;
        error::HostError::to_debug_string(&mut self.table, error)
    }

    fn drop(&mut self, error: Resource<streams::Error>) -> wasmtime::Result<()> {
        error::HostError::drop(&mut self.table, error)
    }
}

impl streams::Host for GuestState {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(&mut self.table, error)
    }
}

/// Counts a host call, then lets the table do it: the only streams in it are ours,
/// which are always ready.
macro_rules! counted {
    (async $trait:path: $(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(async fn $name(&mut self, $($arg: $type),*) -> StreamResult<$result> {
            self.charge_and_yield(Interface::Wasi).await.map_err(StreamError::Trap)?;
            <_ as $trait>::$name(&mut self.table, $($arg),*).await
        })*
    };
    ($trait:path: $(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&mut self, $($arg: $type),*) -> StreamResult<$result> {
            self.charge(Interface::Wasi, 0).map_err(StreamError::Trap)?;
            <_ as $trait>::$name(&mut self.table, $($arg),*)
        })*
    };
}

type In = Resource<DynInputStream>;
type Out = Resource<DynOutputStream>;

impl streams::HostInputStream for GuestState {
    counted! { streams::HostInputStream:
        fn read(stream: In, len: u64) -> Vec<u8>;
        fn skip(stream: In, len: u64) -> u64;
    }
    counted! { async streams::HostInputStream:
        fn blocking_read(stream: In, len: u64) -> Vec<u8>;
        fn blocking_skip(stream: In, len: u64) -> u64;
    }

    fn subscribe(&mut self, stream: In) -> wasmtime::Result<Resource<DynPollable>> {
        self.charge(Interface::Wasi, 0)?;
        streams::HostInputStream::subscribe(&mut self.table, stream)
    }

    async fn drop(&mut self, stream: In) -> wasmtime::Result<()> {
        streams::HostInputStream::drop(&mut self.table, stream).await
    }
}

impl streams::HostOutputStream for GuestState {
    counted! { streams::HostOutputStream:
        fn check_write(stream: Out) -> u64;
        fn write_zeroes(stream: Out, len: u64) -> ();
        fn flush(stream: Out) -> ();
        fn splice(to: Out, from: In, len: u64) -> u64;
    }
    counted! { async streams::HostOutputStream:
        fn blocking_write_zeroes_and_flush(stream: Out, len: u64) -> ();
        fn blocking_flush(stream: Out) -> ();
        fn blocking_splice(to: Out, from: In, len: u64) -> u64;
    }

    fn write(&mut self, stream: Out, bytes: Vec<u8>) -> StreamResult<()> {
        self.charge(Interface::Wasi, bytes.len() as u64).map_err(StreamError::Trap)?;
        streams::HostOutputStream::write(&mut self.table, stream, bytes)
    }

    async fn blocking_write_and_flush(&mut self, stream: Out, bytes: Vec<u8>) -> StreamResult<()> {
        self.charge_bytes_and_yield(Interface::Wasi, bytes.len() as u64).await.map_err(StreamError::Trap)?;
        streams::HostOutputStream::blocking_write_and_flush(&mut self.table, stream, bytes).await
    }

    fn subscribe(&mut self, stream: Out) -> wasmtime::Result<Resource<DynPollable>> {
        self.charge(Interface::Wasi, 0)?;
        streams::HostOutputStream::subscribe(&mut self.table, stream)
    }

    async fn drop(&mut self, stream: Out) -> wasmtime::Result<()> {
        streams::HostOutputStream::drop(&mut self.table, stream).await
    }
}

impl GuestState {
    fn random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.charge(Interface::Wasi, len)?;
        if len > RANDOM_BYTES_MAX {
            let text = format!("asked for {len} random bytes at once, {RANDOM_BYTES_MAX} are allowed");
            return Err(wasmtime::Error::msg(text));
        }
        let mut bytes = vec![0; len as usize];
        self.random().fill_bytes(&mut bytes);
        Ok(bytes)
    }

    fn random_u64(&mut self) -> wasmtime::Result<u64> {
        self.charge(Interface::Wasi, 0)?;
        Ok(self.random().next_u64())
    }
}

impl random::Host for GuestState {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_u64()
    }
}

impl insecure::Host for GuestState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_u64()
    }
}

impl insecure_seed::Host for GuestState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random_u64()?, self.random_u64()?))
    }
}

impl environment::Host for GuestState {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        self.charge(Interface::Wasi, 0)?;
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        self.charge(Interface::Wasi, 0)?;
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        self.charge(Interface::Wasi, 0)?;
        Ok(None)
    }
}

impl exit::Host for GuestState {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        self.exit_with_code(u8::from(status.is_err()))
    }

    fn exit_with_code(&mut self, code: u8) -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!("the guest called `exit` with status {code}")))
    }
}

impl stdin::Host for GuestState {
    fn get_stdin(&mut self) -> wasmtime::Result<In> {
        self.charge(Interface::Wasi, 0)?;
        let stream: DynInputStream = Box::new(ClosedInputStream);
        Ok(self.table.push(stream)?)
    }
}

impl stdout::Host for GuestState {
    fn get_stdout(&mut self) -> wasmtime::Result<Out> {
        self.charge(Interface::Wasi, 0)?;
        let stream: DynOutputStream = Box::new(self.stdout().clone());
        Ok(self.table.push(stream)?)
    }
}

impl stderr::Host for GuestState {
    fn get_stderr(&mut self) -> wasmtime::Result<Out> {
        self.charge(Interface::Wasi, 0)?;
        let stream: DynOutputStream = Box::new(self.stderr().clone());
        Ok(self.table.push(stream)?)
    }
}

impl terminal_input::Host for GuestState {}

impl terminal_input::HostTerminalInput for GuestState {
    fn drop(&mut self, terminal: Resource<TerminalInput>) -> wasmtime::Result<()> {
        // None is ever made, so the table will say that there is no such thing.
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl terminal_output::Host for GuestState {}

impl terminal_output::HostTerminalOutput for GuestState {
    fn drop(&mut self, terminal: Resource<TerminalOutput>) -> wasmtime::Result<()> {
        self.table.delete(terminal)?;
        Ok(())
    }
}

impl terminal_stdin::Host for GuestState {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<TerminalInput>>> {
        self.charge(Interface::Wasi, 0)?;
        Ok(None)
    }
}

impl terminal_stdout::Host for GuestState {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<TerminalOutput>>> {
        self.charge(Interface::Wasi, 0)?;
        Ok(None)
    }
}

impl terminal_stderr::Host for GuestState {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<TerminalOutput>>> {
        self.charge(Interface::Wasi, 0)?;
        Ok(None)
    }
}

// Needed by the next, which names its errors.
impl network::Host for GuestState {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        _error: Resource<streams::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(None)
    }
}

impl network::HostNetwork for GuestState {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

// wasmtime-wasi's own asks a tokio runtime of its own before it denies.
impl ip_name_lookup::Host for GuestState {
    fn resolve_addresses(
        &mut self,
        _network: Resource<Network>,
        _name: String,
    ) -> Result<Resource<ResolveAddressStream>, SocketError> {
        self.charge(Interface::Wasi, 0).map_err(SocketError::trap)?;
        Err(ErrorCode::AccessDenied.into())
    }
}

impl ip_name_lookup::HostResolveAddressStream for GuestState {
    fn resolve_next_address(
        &mut self,
        _stream: Resource<ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, SocketError> {
        Err(ErrorCode::AccessDenied.into())
    }

    fn subscribe(
        &mut self,
        _stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        Err(wasmtime::Error::msg("no name lookup was ever begun"))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
