//! AIO's `command-invoker`: what operators ask of other programs over MQTT, in the types
//! and with the errors of its WIT. A request that waits for its answer suspends the
//! guest's fiber, within its time-out on the shard's clock. What builders and requests
//! hold is bounded for each instance.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use wasmtime::{
    StoreContextMut,
    component::{ComponentType, LinkerInstance, Lower, Resource, ResourceType},
};

use crate::{
    command::{
        Answer, Calls, CommandError, CommandErrorKind as Kind, Commands, RESERVED_PREFIX, Request as Asked,
        TIMEOUT_DEFAULT, TIMEOUT_MAX,
        pattern::{PatternError, Patterns, TOPIC_BYTES_MAX, TopicPattern},
    },
    guest::{
        host_call::Interface,
        log::Severity,
        state::{GuestState, LISTED_BYTES},
        state_store::{HybridLogicalClock, NANOS, Timespec},
    },
    topic::is_text,
};

/// Builders, requests, options and invokers that one instance may have at once.
pub const HANDLES_MAX: u32 = 256;

/// Bytes that these may hold beside two of the largest payloads.
const HELD_BYTES_MAX: u64 = 256 << 10;

/// Most pairs, and most bytes, of user data or topic tokens.
const PAIRS_MAX: usize = 64;
const PAIRS_BYTES_MAX: usize = 16 << 10;

type Pairs = Vec<(String, String)>;
/// The same, shared by all that come of one builder.
type UserData = Arc<[(String, String)]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
enum RpcError {
    #[component(name = "configuration-invalid")]
    ConfigurationInvalid,
    #[component(name = "payload-invalid")]
    PayloadInvalid,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "client-error")]
    ClientError,
    #[component(name = "cancellation")]
    Cancellation,
    #[component(name = "header-invalid")]
    HeaderInvalid,
    #[component(name = "header-missing")]
    HeaderMissing,
    #[component(name = "unknown-error")]
    UnknownError,
    #[component(name = "invocation-exception")]
    InvocationException,
    #[component(name = "execution-exception")]
    ExecutionException,
    #[component(name = "internal-logic-error")]
    InternalLogicError,
    #[component(name = "state-invalid")]
    StateInvalid,
    /// The instance holds too much.
    #[component(name = "resource-table-error")]
    ResourceTableError,
    /// A builder lacks what it must have.
    #[component(name = "build-error")]
    BuildError,
}

impl From<Kind> for RpcError {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::ConfigurationInvalid => RpcError::ConfigurationInvalid,
            Kind::PayloadInvalid => RpcError::PayloadInvalid,
            Kind::Timeout => RpcError::Timeout,
            Kind::ClientError => RpcError::ClientError,
            Kind::Cancellation => RpcError::Cancellation,
            Kind::HeaderInvalid => RpcError::HeaderInvalid,
            Kind::HeaderMissing => RpcError::HeaderMissing,
            Kind::UnknownError => RpcError::UnknownError,
            Kind::InvocationException => RpcError::InvocationException,
            Kind::ExecutionException => RpcError::ExecutionException,
            Kind::InternalLogicError => RpcError::InternalLogicError,
            Kind::StateInvalid => RpcError::StateInvalid,
        }
    }
}

/// An error, and what of it is said in the tenant's log.
struct Refusal(RpcError, String);

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Refusal(error.kind.into(), error.text)
    }
}

impl From<PatternError> for Refusal {
    fn from(error: PatternError) -> Self {
        Refusal(RpcError::ConfigurationInvalid, error.to_string())
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct CommandResponse {
    payload: Vec<u8>,
    #[component(name = "custom-user-data")]
    custom_user_data: Pairs,
    timestamp: Option<HybridLogicalClock<String>>,
}

impl From<Answer> for CommandResponse {
    fn from(Answer { payload, user_data, time }: Answer) -> Self {
        let clock = |(point, node_id): (crate::hlc::Point, String)| HybridLogicalClock {
            timestamp: Timespec { secs: point.ms / 1000, nanos: (point.ms % 1000) as u32 * 1_000_000 },
            counter: point.counter,
            node_id,
        };
        CommandResponse { payload, custom_user_data: user_data, timestamp: time.map(clock) }
    }
}

/// What one instance's handles hold.
#[derive(Debug, Default)]
pub(super) struct Held {
    handles: AtomicU32,
    bytes: AtomicU64,
}

/// A part of it, given back when dropped.
struct Hold {
    held: Arc<Held>,
    handles: u32,
    bytes: u64,
}

impl Hold {
    fn take(state: &mut GuestState, handles: u32, bytes: usize) -> Result<Hold, Refusal> {
        let held = state.commands_held.get_or_insert_default().clone();
        let bytes = bytes as u64;
        let bytes_max = HELD_BYTES_MAX + 2 * state.tenant.limits.output_bytes_max;
        let handles_all = held.handles.fetch_add(handles, Ordering::Relaxed) + handles;
        let bytes_all = held.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let hold = Hold { held, handles, bytes };
        if handles_all <= HANDLES_MAX && bytes_all <= bytes_max {
            return Ok(hold);
        }
        let text = format!(
            "{handles_all} handles and {bytes_all} bytes of commands, {HANDLES_MAX} and {bytes_max} are allowed"
        );
        Err(Refusal(RpcError::ResourceTableError, text))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.handles.fetch_sub(self.handles, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A value that counts for as long as anything refers to it.
struct Kept<T> {
    value: T,
    _hold: Hold,
}

type Keeps<T> = Option<Arc<Kept<T>>>;

/// What a builder returns is the same builder again, so that both ways to use it are
/// right: with the handle that it was called on, and with the one that came of it.
struct RequestBuilder {
    draft: Arc<Mutex<RequestDraft>>,
    _hold: Hold,
}

#[derive(Clone, Default)]
struct RequestDraft {
    payload: Keeps<Bytes>,
    user_data: Keeps<UserData>,
    tokens: Keeps<Pairs>,
    timeout: Option<Duration>,
}

/// A request that can be sent.
struct Request {
    draft: RequestDraft,
    _hold: Hold,
}

/// As [`RequestBuilder`].
struct OptionsBuilder {
    draft: Arc<Mutex<OptionsDraft>>,
    _hold: Hold,
}

#[derive(Clone, Default)]
struct OptionsDraft {
    request: Keeps<String>,
    response: Keeps<String>,
    command: Keeps<String>,
    namespace: Keeps<String>,
    prefix: Keeps<String>,
    suffix: Keeps<String>,
    tokens: Keeps<Pairs>,
}

struct Options {
    draft: OptionsDraft,
    _hold: Hold,
}

struct Invoker {
    request: TopicPattern,
    response: TopicPattern,
    /// What the patterns take.
    _hold: Hold,
}

/// Adds the functions of the interface to an instance of it.
pub fn add_to(invoker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    add_resource::<RequestBuilder>(invoker, "command-request-builder")?;
    add_resource::<Request>(invoker, "command-request")?;
    add_resource::<OptionsBuilder>(invoker, "command-invoker-options-builder")?;
    add_resource::<Options>(invoker, "command-invoker-options")?;
    add_resource::<Invoker>(invoker, "command-invoker")?;
    add_request_builder(invoker)?;
    add_options_builder(invoker)?;
    invoker.func_wrap(
        "new-invoker",
        |mut store: StoreContextMut<'_, GuestState>, (options,): (Resource<Options>,)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, 0)?;
            let options = state.table.delete(options)?;
            let result = new_invoker(state, &options.draft);
            Ok((told(state, result),))
        },
    )?;
    invoker.func_wrap_async(
        "[method]command-invoker.invoke",
        |mut store: StoreContextMut<'_, GuestState>, params: (Resource<Invoker>, Resource<Request>)| {
            Box::new(async move {
                let (invoker, request) = params;
                let state = store.data_mut();
                let request = state.table.delete(request)?;
                state.charge_and_yield(Interface::Commands).await?;
                let result = invoke(state, &invoker, &request.draft).await?;
                if let Ok(answer) = &result {
                    state.charge_more(answer.bytes_len() as u64)?;
                }
                Ok((told(state, result.map(CommandResponse::from)),))
            })
        },
    )
}

fn add_resource<T: Send + 'static>(
    invoker: &mut LinkerInstance<'_, GuestState>,
    name: &str,
) -> wasmtime::Result<()> {
    invoker.resource(name, ResourceType::host::<T>(), |mut store: StoreContextMut<'_, GuestState>, rep| {
        store.data_mut().table.delete(Resource::<T>::new_own(rep))?;
        Ok(())
    })
}

/// The error for the guest; the tenant's log says more.
fn told<T>(state: &GuestState, result: Result<T, Refusal>) -> Result<T, RpcError> {
    result.map_err(|Refusal(error, text)| {
        state.log.line(Severity::Warn, "command-invoker", &text);
        error
    })
}

fn push<T: Send + 'static>(state: &mut GuestState, value: T) -> Result<Resource<T>, Refusal> {
    state.table.push(value).map_err(|error| Refusal(RpcError::ResourceTableError, error.to_string()))
}

fn pairs_bytes(pairs: &Pairs) -> usize {
    pairs.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// What a call with pairs carries: empty ones too take time.
fn pairs_carried(pairs: &Pairs) -> u64 {
    (pairs_bytes(pairs) + pairs.len() * LISTED_BYTES) as u64
}

fn keep<T>(state: &mut GuestState, bytes: usize, value: T) -> Result<Keeps<T>, Refusal> {
    let hold = Hold::take(state, 0, bytes)?;
    Ok(Some(Arc::new(Kept { value, _hold: hold })))
}

/// The bytes of pairs that are not too many.
fn check_pairs(pairs: &Pairs, error: RpcError) -> Result<usize, Refusal> {
    let (count, bytes) = (pairs.len(), pairs_bytes(pairs));
    if count <= PAIRS_MAX && bytes <= PAIRS_BYTES_MAX {
        return Ok(bytes);
    }
    let text = format!("{count} pairs of {bytes} bytes, {PAIRS_MAX} of {PAIRS_BYTES_MAX} bytes are allowed");
    Err(Refusal(error, text))
}

fn keep_tokens(state: &mut GuestState, pairs: Pairs) -> Result<Keeps<Pairs>, Refusal> {
    let bytes = check_pairs(&pairs, RpcError::ConfigurationInvalid)?;
    keep(state, bytes, pairs)
}

fn add_request_builder(invoker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    type Builder = Resource<RequestBuilder>;
    type Store<'a> = StoreContextMut<'a, GuestState>;
    invoker.func_wrap("[constructor]command-request-builder", |mut store: Store<'_>, (): ()| {
        let state = store.data_mut();
        state.charge(Interface::Commands, 0)?;
        // A constructor has no way to say no.
        let hold = Hold::take(state, 1, 0).map_err(|Refusal(_, text)| wasmtime::Error::msg(text))?;
        Ok((state.table.push(RequestBuilder { draft: Arc::default(), _hold: hold })?,))
    })?;
    invoker.func_wrap(
        "[method]command-request-builder.payload",
        |mut store: Store<'_>, (builder, payload): (Builder, Vec<u8>)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, payload.len() as u64)?;
            let payload = keep_payload(state, payload);
            change_request(state, &builder, payload, |draft, payload| draft.payload = payload)
        },
    )?;
    invoker.func_wrap(
        "[method]command-request-builder.custom-user-data",
        |mut store: Store<'_>, (builder, pairs): (Builder, Pairs)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, pairs_carried(&pairs))?;
            let user_data = keep_user_data(state, pairs);
            change_request(state, &builder, user_data, |draft, user_data| draft.user_data = user_data)
        },
    )?;
    invoker.func_wrap(
        "[method]command-request-builder.topic-tokens",
        |mut store: Store<'_>, (builder, pairs): (Builder, Pairs)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, pairs_carried(&pairs))?;
            let tokens = keep_tokens(state, pairs);
            change_request(state, &builder, tokens, |draft, tokens| draft.tokens = tokens)
        },
    )?;
    invoker.func_wrap(
        "[method]command-request-builder.timeout",
        |mut store: Store<'_>, (builder, secs, nanos): (Builder, u64, u32)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, 0)?;
            let timeout = timeout_of(secs, nanos);
            change_request(state, &builder, timeout, |draft, timeout| draft.timeout = Some(timeout))
        },
    )?;
    invoker.func_wrap(
        "[method]command-request-builder.build",
        |mut store: Store<'_>, (builder,): (Builder,)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, 0)?;
            let draft = state.table.get(&builder)?.draft.lock().expect("no panic under this lock").clone();
            let result = build_request(state, draft);
            Ok((told(state, result),))
        },
    )
}

/// Puts what a builder was given into it, and gives a handle to it.
fn change_request<T>(
    state: &mut GuestState,
    builder: &Resource<RequestBuilder>,
    given: Result<T, Refusal>,
    change: impl FnOnce(&mut RequestDraft, T),
) -> wasmtime::Result<(Result<Resource<RequestBuilder>, RpcError>,)> {
    let draft = state.table.get(builder)?.draft.clone();
    let result = given.and_then(|given| {
        change(&mut draft.lock().expect("no panic under this lock"), given);
        let hold = Hold::take(state, 1, 0)?;
        push(state, RequestBuilder { draft, _hold: hold })
    });
    Ok((told(state, result),))
}

fn keep_payload(state: &mut GuestState, payload: Vec<u8>) -> Result<Keeps<Bytes>, Refusal> {
    let (bytes, bytes_max) = (payload.len(), state.tenant.limits.output_bytes_max);
    if bytes as u64 > bytes_max {
        let text = format!("a payload of {bytes} bytes, policy's `output.bytes` allows {bytes_max}");
        return Err(Refusal(RpcError::PayloadInvalid, text));
    }
    keep(state, bytes, Bytes::from(payload))
}

fn keep_user_data(state: &mut GuestState, pairs: Pairs) -> Result<Keeps<UserData>, Refusal> {
    for (key, value) in &pairs {
        let text = if key.starts_with(RESERVED_PREFIX) {
            format!("user data with the key `{key}`: what begins with `{RESERVED_PREFIX}` is the protocol's")
        } else if !is_text(key.as_bytes()) || !is_text(value.as_bytes()) {
            format!("user data with the key {key:?} is not text that MQTT carries")
        } else {
            continue;
        };
        return Err(Refusal(RpcError::HeaderInvalid, text));
    }
    let bytes = check_pairs(&pairs, RpcError::HeaderInvalid)?;
    keep(state, bytes, pairs.into())
}

/// As long as the guest says, within the longest that is allowed.
fn timeout_of(secs: u64, nanos: u32) -> Result<Duration, Refusal> {
    if nanos >= NANOS || (secs, nanos) == (0, 0) {
        let text = format!("{secs} s and {nanos} ns are no time-out");
        return Err(Refusal(RpcError::ConfigurationInvalid, text));
    }
    Ok(Duration::new(secs, nanos).min(TIMEOUT_MAX))
}

fn build_request(state: &mut GuestState, draft: RequestDraft) -> Result<Resource<Request>, Refusal> {
    if draft.payload.is_none() {
        return Err(Refusal(RpcError::BuildError, "a request without a payload".to_owned()));
    }
    let hold = Hold::take(state, 1, 0)?;
    push(state, Request { draft, _hold: hold })
}

/// Sets one text of the options.
type SetText = fn(&mut OptionsDraft, Keeps<String>);

const TEXTS: [(&str, SetText); 6] = [
    ("request-topic-pattern", |draft, text| draft.request = text),
    ("response-topic-pattern", |draft, text| draft.response = text),
    ("command-name", |draft, text| draft.command = text),
    ("topic-namespace", |draft, text| draft.namespace = text),
    ("response-topic-prefix", |draft, text| draft.prefix = text),
    ("response-topic-suffix", |draft, text| draft.suffix = text),
];

fn add_options_builder(invoker: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    type Builder = Resource<OptionsBuilder>;
    type Store<'a> = StoreContextMut<'a, GuestState>;
    invoker.func_wrap("[constructor]command-invoker-options-builder", |mut store: Store<'_>, (): ()| {
        let state = store.data_mut();
        state.charge(Interface::Commands, 0)?;
        let hold = Hold::take(state, 1, 0).map_err(|Refusal(_, text)| wasmtime::Error::msg(text))?;
        Ok((state.table.push(OptionsBuilder { draft: Arc::default(), _hold: hold })?,))
    })?;
    for (name, set) in TEXTS {
        invoker.func_wrap(
            &format!("[method]command-invoker-options-builder.{name}"),
            move |mut store: Store<'_>, (builder, text): (Builder, String)| {
                let state = store.data_mut();
                state.charge(Interface::Commands, text.len() as u64)?;
                let text = keep_option(state, name, text);
                change_options(state, &builder, text, set)
            },
        )?;
    }
    invoker.func_wrap(
        "[method]command-invoker-options-builder.topic-token-map",
        |mut store: Store<'_>, (builder, pairs): (Builder, Pairs)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, pairs_carried(&pairs))?;
            let tokens = keep_tokens(state, pairs);
            change_options(state, &builder, tokens, |draft, tokens| draft.tokens = tokens)
        },
    )?;
    invoker.func_wrap(
        "[method]command-invoker-options-builder.build",
        |mut store: Store<'_>, (builder,): (Builder,)| {
            let state = store.data_mut();
            state.charge(Interface::Commands, 0)?;
            let draft = state.table.get(&builder)?.draft.lock().expect("no panic under this lock").clone();
            let result = build_options(state, draft);
            Ok((told(state, result),))
        },
    )
}

fn keep_option(state: &mut GuestState, name: &str, text: String) -> Result<Keeps<String>, Refusal> {
    let bytes = text.len();
    if bytes > TOPIC_BYTES_MAX {
        let text = format!("`{name}` has {bytes} bytes, {TOPIC_BYTES_MAX} are allowed");
        return Err(Refusal(RpcError::ConfigurationInvalid, text));
    }
    keep(state, bytes, text)
}

fn change_options<T>(
    state: &mut GuestState,
    builder: &Resource<OptionsBuilder>,
    given: Result<T, Refusal>,
    change: impl FnOnce(&mut OptionsDraft, T),
) -> wasmtime::Result<(Result<Resource<OptionsBuilder>, RpcError>,)> {
    let draft = state.table.get(builder)?.draft.clone();
    let result = given.and_then(|given| {
        change(&mut draft.lock().expect("no panic under this lock"), given);
        let hold = Hold::take(state, 1, 0)?;
        push(state, OptionsBuilder { draft, _hold: hold })
    });
    Ok((told(state, result),))
}

fn build_options(state: &mut GuestState, draft: OptionsDraft) -> Result<Resource<Options>, Refusal> {
    for (missing, name) in
        [(draft.request.is_none(), "request-topic-pattern"), (draft.command.is_none(), "command-name")]
    {
        if missing {
            return Err(Refusal(RpcError::BuildError, format!("options without `{name}`")));
        }
    }
    let hold = Hold::take(state, 1, 0)?;
    push(state, Options { draft, _hold: hold })
}

/// Without a broker there are invokers too: what is made in `init` must not refuse a
/// deploy, whose trial has none.
fn new_invoker(state: &mut GuestState, options: &OptionsDraft) -> Result<Resource<Invoker>, Refusal> {
    fn text(kept: &Keeps<String>) -> Option<&str> {
        kept.as_ref().map(|kept| kept.value.as_str())
    }
    let patterns = Patterns {
        request: text(&options.request).expect("checked when they were built"),
        response: text(&options.response),
        prefix: text(&options.prefix),
        suffix: text(&options.suffix),
        namespace: text(&options.namespace),
        command: text(&options.command).expect("checked when they were built"),
        tokens: options.tokens.as_ref().map_or(&[], |kept| &kept.value),
    };
    let client_id = state.commands.as_ref().map_or("nobody", |commands| commands.client_id());
    let (request, response) = patterns.read(client_id)?;
    let hold = Hold::take(state, 1, request.bytes_len() + response.bytes_len())?;
    push(state, Invoker { request, response, _hold: hold })
}

async fn ask(commands: &Arc<Commands>, calls: &Arc<Calls>, request: Asked) -> Result<Answer, CommandError> {
    let permit = calls.permit().await;
    commands.begin(permit, request)?.await
}

async fn invoke(
    state: &mut GuestState,
    invoker: &Resource<Invoker>,
    request: &RequestDraft,
) -> wasmtime::Result<Result<Answer, Refusal>> {
    let Invoker { request: to, response, .. } = state.table.get(invoker)?;
    let tokens: &[_] = request.tokens.as_ref().map_or(&[], |kept| &kept.value);
    let topics = to.topic(tokens).and_then(|topic| Ok((topic, response.topic(tokens)?)));
    let (topic, response) = match topics {
        Ok(topics) => topics,
        Err(error) => return Ok(Err(error.into())),
    };
    let Some(commands) = state.commands.clone() else {
        let text = "there is no broker for commands: not in a trial, in `tidegate run` or in `tidegate test`";
        return Ok(Err(Refusal(RpcError::ClientError, text.to_owned())));
    };
    let (began, calls) = (state.clock.now(), state.tenant.calls.clone());
    let patience = state.command_patience(request.timeout.unwrap_or(TIMEOUT_DEFAULT));
    let asked = Asked {
        topic,
        response,
        payload: request.payload.as_ref().map_or_else(Bytes::new, |kept| kept.value.clone()),
        user_data: request.user_data.as_ref().map_or_else(Arc::default, |kept| kept.value.clone()),
        until: patience.end(),
    };
    let result = patience.within(ask(&commands, &calls, asked)).await;
    state.spend_waiting(state.clock.now().since(began));
    Ok(match result {
        Some(result) => result.map_err(Refusal::from),
        None => {
            calls.count_timed_out();
            Err(Refusal(RpcError::Timeout, "no answer in time".to_owned()))
        }
    })
}
