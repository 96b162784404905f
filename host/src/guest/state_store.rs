//! AIO's `state-store`: what its operators ask of their tenant's key space, in the
//! types and with the errors of its WIT. A request that waits for the disk suspends
//! the guest's fiber, within its time-out on the shard's clock.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, LinkerInstance, Lower},
};

use crate::{
    guest::{host_call::Interface, state::GuestState},
    store::{Answer, Condition, Set, StateError, Version},
};

#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct Timespec {
    pub secs: u64,
    pub nanos: u32,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(super) struct HybridLogicalClock<S> {
    pub timestamp: Timespec,
    pub counter: u64,
    #[component(name = "node-id")]
    pub node_id: S,
}

/// One that the guest is told.
type Told = HybridLogicalClock<Arc<str>>;

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(record)]
struct Length {
    seconds: u64,
    nanos: u32,
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "made by lifting alone")]
enum SetConditions {
    #[component(name = "only-if-does-not-exist")]
    OnlyIfDoesNotExist,
    #[component(name = "only-if-equal-or-does-not-exist")]
    OnlyIfEqualOrDoesNotExist,
    #[component(name = "unconditional")]
    Unconditional,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct SetOptions {
    conditions: SetConditions,
    expires: Option<Length>,
}

#[derive(Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
enum StateStoreError {
    #[component(name = "request-error")]
    RequestError(String),
    #[component(name = "timeout")]
    Timeout,
    /// A duration or a clock that cannot be one.
    #[component(name = "protocol")]
    Protocol,
    #[component(name = "internal")]
    Internal,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct GetResponse {
    response: Option<Arc<[u8]>>,
    version: Option<Told>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct SetResponse {
    response: bool,
    version: Option<Told>,
}

/// 1 for a key that was deleted, 0 for one that is not there, -1 for one with
/// another value.
#[derive(ComponentType, Lower)]
#[component(record)]
struct DelResponse {
    response: i64,
    version: Option<Told>,
}

impl From<StateError> for StateStoreError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Unreadable => StateStoreError::Internal,
            refused => StateStoreError::RequestError(refused.to_string()),
        }
    }
}

impl From<Version> for Told {
    fn from(version: Version) -> Self {
        let Version { seconds, nanos, counter, node } = version;
        HybridLogicalClock { timestamp: Timespec { secs: seconds, nanos }, counter, node_id: node }
    }
}

pub(super) const NANOS: u32 = 1_000_000_000;

/// Longest name of a node in a fencing token, in bytes: it is kept with its key.
const NODE_BYTES_MAX: usize = 1 << 10;

fn version(clock: Option<HybridLogicalClock<String>>) -> Result<Option<Version>, StateStoreError> {
    let Some(HybridLogicalClock { timestamp, counter, node_id }) = clock else { return Ok(None) };
    if timestamp.nanos >= NANOS || node_id.len() > NODE_BYTES_MAX {
        return Err(StateStoreError::Protocol);
    }
    let Timespec { secs, nanos } = timestamp;
    Ok(Some(Version { seconds: secs, nanos, counter, node: node_id.into() }))
}

/// Bytes that a token carries: as much as a guest likes, until it is looked at.
fn bytes_of(token: &Option<HybridLogicalClock<String>>) -> usize {
    token.as_ref().map_or(0, |token| token.node_id.len())
}

fn length(length: Option<Length>) -> Result<Option<Duration>, StateStoreError> {
    match length {
        Some(Length { nanos, .. }) if nanos >= NANOS => Err(StateStoreError::Protocol),
        Some(Length { seconds, nanos }) => Ok(Some(Duration::new(seconds, nanos))),
        None => Ok(None),
    }
}

/// The answer of the key space, unless it takes longer than the guest waits.
async fn within<T>(
    state: &mut GuestState,
    timeout: Option<Duration>,
    answer: impl Future<Output = Result<T, StateError>>,
) -> Result<T, StateStoreError> {
    let mut answer = pin!(answer);
    // Most are there at once, and nobody looks at a clock.
    if let Poll::Ready(answer) = poll_fn(|ctx| Poll::Ready(answer.as_mut().poll(ctx))).await {
        return Ok(answer?);
    }
    let answer = state.patience(timeout).within(answer).await.ok_or(StateStoreError::Timeout)?;
    Ok(answer?)
}

/// Adds the functions of the interface to an instance of it.
pub fn add_to(store: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    store.func_wrap_async(
        "get",
        |mut store: StoreContextMut<'_, GuestState>, (key, timeout): (Vec<u8>, Option<Length>)| {
            Box::new(async move {
                let state = store.data_mut();
                state.charge_bytes_and_yield(Interface::StateReads, key.len() as u64).await?;
                let result = get(state, &key, timeout).await;
                if let Ok(GetResponse { response: Some(value), .. }) = &result {
                    state.charge_more(value.len() as u64)?;
                }
                Ok((result,))
            })
        },
    )?;
    type SetParams = (Vec<u8>, Vec<u8>, Option<Length>, Option<HybridLogicalClock<String>>, SetOptions);
    store.func_wrap_async(
        "set",
        |mut store: StoreContextMut<'_, GuestState>, (key, value, timeout, token, options): SetParams| {
            Box::new(async move {
                let state = store.data_mut();
                let bytes = key.len() + value.len() + bytes_of(&token);
                state.charge_bytes_and_yield(Interface::StateWrites, bytes as u64).await?;
                Ok((set(state, (key, value), timeout, token, options).await,))
            })
        },
    )?;
    type DelParams = (Vec<u8>, Option<HybridLogicalClock<String>>, Option<Length>);
    store.func_wrap_async(
        "del",
        |mut store: StoreContextMut<'_, GuestState>, (key, token, timeout): DelParams| {
            Box::new(async move {
                let state = store.data_mut();
                state
                    .charge_bytes_and_yield(Interface::StateWrites, (key.len() + bytes_of(&token)) as u64)
                    .await?;
                Ok((delete(state, &key, None, token, timeout).await,))
            })
        },
    )?;
    type VdelParams = (Vec<u8>, Vec<u8>, Option<HybridLogicalClock<String>>, Option<Length>);
    store.func_wrap_async(
        "vdel",
        |mut store: StoreContextMut<'_, GuestState>, (key, value, token, timeout): VdelParams| {
            Box::new(async move {
                let state = store.data_mut();
                let bytes = key.len() + value.len() + bytes_of(&token);
                state.charge_bytes_and_yield(Interface::StateWrites, bytes as u64).await?;
                Ok((delete(state, &key, Some(&value), token, timeout).await,))
            })
        },
    )
}

async fn get(
    state: &mut GuestState,
    key: &[u8],
    timeout: Option<Length>,
) -> Result<GetResponse, StateStoreError> {
    let (timeout, wall, keys) = (length(timeout)?, state.clock.wall(), state.keys.clone());
    let record = within(state, timeout, keys.get(key, wall)).await?;
    Ok(match record {
        Some(record) => {
            GetResponse { response: Some(record.value.clone()), version: Some(record.version.clone().into()) }
        }
        None => GetResponse { response: None, version: None },
    })
}

async fn set(
    state: &mut GuestState,
    (key, value): (Vec<u8>, Vec<u8>),
    timeout: Option<Length>,
    token: Option<HybridLogicalClock<String>>,
    options: SetOptions,
) -> Result<SetResponse, StateStoreError> {
    let timeout = length(timeout)?;
    let condition = match options.conditions {
        SetConditions::OnlyIfDoesNotExist => Condition::OnlyIfAbsent,
        SetConditions::OnlyIfEqualOrDoesNotExist => Condition::OnlyIfEqualOrAbsent,
        SetConditions::Unconditional => Condition::Unconditional,
    };
    let (token, expires) = (version(token)?, length(options.expires)?);
    let set = Set { key, value: value.into(), condition, token, expires };
    let (wall, keys) = (state.clock.wall(), state.keys.clone());
    let answer = within(state, timeout, keys.set(set, wall)).await?;
    Ok(match answer {
        Answer::Done(version) => {
            state.changed_keys();
            SetResponse { response: true, version: Some(version.into()) }
        }
        Answer::Differs(version) => SetResponse { response: false, version: Some(version.into()) },
        Answer::Absent => SetResponse { response: false, version: None },
    })
}

async fn delete(
    state: &mut GuestState,
    key: &[u8],
    value: Option<&[u8]>,
    token: Option<HybridLogicalClock<String>>,
    timeout: Option<Length>,
) -> Result<DelResponse, StateStoreError> {
    let (timeout, token) = (length(timeout)?, version(token)?);
    let (wall, keys) = (state.clock.wall(), state.keys.clone());
    let answer = within(state, timeout, keys.delete(key, value, token.as_ref(), wall)).await?;
    Ok(match answer {
        Answer::Done(version) => {
            state.changed_keys();
            DelResponse { response: 1, version: Some(version.into()) }
        }
        Answer::Absent => DelResponse { response: 0, version: None },
        Answer::Differs(version) => DelResponse { response: -1, version: Some(version.into()) },
    })
}
