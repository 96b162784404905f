//! `Ticker`: ends the epoch of an engine while one of its guests runs on this thread, by a
//! timer whose signal this thread alone receives; and how soon a thread that wakes gets a
//! core. The second of the two places that may use `unsafe`. Knows nothing of guests:
//! whether a slice is over, others decide.
//!
//! A thread that sleeps between ticks would be at the mercy of the scheduler: ticks of
//! 250 µs came up to 27 ms late, where those of a timer aimed at the thread came 80 µs
//! late at most.
#![allow(unsafe_code, reason = "neither the standard library nor rustix has either for one thread")]

use std::{
    io,
    marker::PhantomData,
    mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, Ordering},
    },
    time::Duration,
};

use wasmtime::Engine;

/// Between two ends of epochs while a guest runs. Each signal takes about 2 µs.
pub const TICK: Duration = Duration::from_micros(100);

thread_local! {
    /// Whose epoch the next signal ends; null while none of its guests runs here.
    static ENGINE: AtomicPtr<Engine> = const { AtomicPtr::new(ptr::null_mut()) };
    /// The timer runs: signals come.
    static IS_ARMED: AtomicBool = const { AtomicBool::new(false) };
    /// What the kernel calls this thread's timer; null while it has none.
    static TIMER_ID: AtomicPtr<libc::c_void> = const { AtomicPtr::new(ptr::null_mut()) };
    /// This thread's timer, made for its first guest.
    static TIMER: OnceLock<Timer> = const { OnceLock::new() };
}

/// A thread's timer, which ends with the thread.
struct Timer(libc::timer_t);

/// While this lives, the engine's epoch ends every [`TICK`].
pub struct Ticking<'a> {
    engine: PhantomData<&'a Engine>,
    /// Of the thread that made it.
    stays: PhantomData<*mut ()>,
}

/// What Linux gives this thread at once where others want the core too: the least it takes.
const SLICE: Duration = Duration::from_micros(100);

/// Has this thread run in short slices where others want its core too, and so take it from
/// them as soon as it wakes. Linux lets whoever runs finish a slice of some 3 ms, whatever
/// its nice value, before one that woke with slices no shorter. From 6.12 on; ignored before.
pub fn shorten_slices() -> io::Result<()> {
    let nice = rustix::process::getpriority_process(Some(rustix::thread::gettid()))?;
    let attributes = libc::sched_attr {
        size: mem::size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SLICE.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: 0 is the calling thread, `attributes` is ours and says its own size.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes this thread's timer, unless it has one.
pub fn prepare() -> io::Result<()> {
    TIMER.with(|timer| {
        if timer.get().is_none() {
            // Nobody else can have set it: this thread is here.
            let _ = timer.set(Timer::new()?);
        }
        Ok(())
    })
}

/// A guest of `engine` is about to run on this thread, which is [prepared](prepare). The
/// timer that this starts is stopped by the first signal that finds no guest: short calls
/// in a row take no system call each.
pub fn ticking(engine: &Engine) -> Ticking<'_> {
    ENGINE.with(|current| current.store(ptr::from_ref(engine).cast_mut(), Ordering::SeqCst));
    // After that: a signal in between would stop what was started.
    if !IS_ARMED.with(|armed| armed.swap(true, Ordering::SeqCst)) {
        let set = TIMER_ID.with(|id| set_timer(id.load(Ordering::SeqCst), TICK));
        assert!(set, "prepared before any guest starts: {}", io::Error::last_os_error());
    }
    Ticking { engine: PhantomData, stays: PhantomData }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        ENGINE.with(|current| current.store(ptr::null_mut(), Ordering::SeqCst));
    }
}

impl Timer {
    fn new() -> io::Result<Self> {
        handle_signal()?;
        // SAFETY: all-zero is a value of both; every field that the kernel reads is set.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        // SAFETY: it has no precondition.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both point to values of ours that outlive the call.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        TIMER_ID.with(|id| id.store(timer, Ordering::SeqCst));
        Ok(Timer(timer))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        TIMER_ID.with(|id| id.store(ptr::null_mut(), Ordering::SeqCst));
        // SAFETY: made by `timer_create`, and deleted here alone. A signal that is still
        // on its way finds neither engine nor timer.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// A signal every `interval`, or none any more if that is nothing. Whether it worked.
fn set_timer(timer: libc::timer_t, interval: Duration) -> bool {
    let interval = libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::from(interval.subsec_nanos()) };
    let times = libc::itimerspec { it_interval: interval, it_value: interval };
    // SAFETY: `times` is ours, and what was set before is not asked for. Whatever is no
    // timer the kernel refuses.
    unsafe { libc::timer_settime(timer, 0, &times, ptr::null_mut()) == 0 }
}

/// The signal of all threads' timers: none that libc or another library has taken.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 5
}

/// Sets the handler, once for the process. On the stack that is kept for handlers, since a
/// guest's may be small; and what the signal interrupts in the kernel goes on.
fn handle_signal() -> io::Result<()> {
    static HANDLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let handled = HANDLED.get_or_init(|| {
        // SAFETY: all-zero is a value of it, with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = on_tick as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: the handler does what a handler may: see there.
        match unsafe { libc::sigaction(signal(), &action, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()),
        }
    });
    handled.map_err(io::Error::from_raw_os_error)
}

/// Runs on the interrupted thread, at any of its instructions: it reads and writes atomics
/// that need no initialisation, and adds to one inside the engine, as wasmtime says that a
/// signal handler may. So may it call `timer_settime`, says POSIX.
extern "C" fn on_tick(_: libc::c_int) {
    let engine = ENGINE.with(|current| current.load(Ordering::SeqCst));
    // SAFETY: set for as long as [`Ticking`] borrows the engine, on this very thread.
    match unsafe { engine.as_ref() } {
        Some(engine) => engine.increment_epoch(),
        None => {
            let timer = TIMER_ID.with(|id| id.load(Ordering::SeqCst));
            if !timer.is_null() && set_timer(timer, Duration::ZERO) {
                IS_ARMED.with(|armed| armed.store(false, Ordering::SeqCst));
            }
        }
    }
}

#[cfg(test)]
mod tests;
