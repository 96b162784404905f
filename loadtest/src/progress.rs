//! What a long run says while it runs: one line that changes on a terminal, a line
//! every few seconds elsewhere. On standard error, as everything but the result.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

const EVERY_ON_TERMINAL: Duration = Duration::from_millis(500);
const EVERY_ELSEWHERE: Duration = Duration::from_secs(5);

pub struct Progress {
    terminal: bool,
    quiet: bool,
    last: Instant,
    /// Characters of the line that is shown now.
    shown: usize,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Progress { terminal: std::io::stderr().is_terminal(), quiet, last: Instant::now(), shown: 0 }
    }

    /// A step of the run, which stays on the screen.
    pub fn step(&mut self, text: &str) {
        self.clear();
        if !self.quiet {
            eprintln!("{text}");
        }
        self.last = Instant::now();
    }

    /// How far it is, if it is time to say so.
    pub fn tick(&mut self, text: impl FnOnce() -> String) {
        let every = if self.terminal { EVERY_ON_TERMINAL } else { EVERY_ELSEWHERE };
        if self.quiet || self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let text = text();
        if !self.terminal {
            eprintln!("  {text}");
            return;
        }
        let text: String = text.chars().take(98).collect();
        let len = text.chars().count();
        eprint!("\r  {text}{:pad$}", "", pad = self.shown.saturating_sub(len));
        let _ = std::io::stderr().flush();
        self.shown = len;
    }

    fn clear(&mut self) {
        if self.shown > 0 {
            eprint!("\r{:pad$}\r", "", pad = self.shown + 2);
            self.shown = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
