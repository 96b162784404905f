//! `Tail`: the last lines of the log, kept for whoever draws the terminal again and again,
//! which would wipe them off. Control side.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept.
const LINES_MAX: usize = 8;

/// Standard error, unless somebody draws; what it said last, or would have. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// Somebody draws, and shows the lines.
    is_drawn: bool,
}

impl Tail {
    /// The last lines, for somebody who draws: from here on lines are only kept.
    pub fn draw(&self) -> Vec<String> {
        let mut state = self.0.lock().expect("no panic under this lock");
        state.is_drawn = true;
        state.lines.iter().cloned().collect()
    }

    /// From here on lines are printed again.
    pub fn let_go(&self) {
        self.0.lock().expect("no panic under this lock").is_drawn = false;
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let State { lines, is_drawn } = &mut *self.0.lock().expect("no panic under this lock");
        // An event comes in one piece.
        lines.extend(String::from_utf8_lossy(bytes).lines().map(str::to_owned));
        let extra = lines.len().saturating_sub(LINES_MAX);
        lines.drain(..extra);
        if *is_drawn { Ok(bytes.len()) } else { io::stderr().write_all(bytes).map(|()| bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Tail {
    type Writer = Tail;

    fn make_writer(&self) -> Tail {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_there_for_whoever_draws() {
        let mut tail = Tail::default();
        assert!(tail.draw().is_empty());
        for number in 0..10 {
            tail.write_all(format!("line {number}\n").as_bytes()).expect("it is kept");
        }
        let expected: Vec<_> = (2..10).map(|number| format!("line {number}")).collect();
        assert_eq!(tail.clone().draw(), expected);
        tail.let_go();
        tail.write_all(b"line 10\n").expect("it is printed");
        assert_eq!(tail.draw().last().map(String::as_str), Some("line 10"));
    }
}
