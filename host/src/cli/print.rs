//! Printing for whoever reads it, if anybody still does: a reader that has seen enough
//! closes the pipe, and a host goes on all the same.

use std::{
    fmt,
    io::{self, Write as _},
};

/// A line of a command's result.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::print::to_out(format_args!("{}\n", format_args!($($text)*))) };
}
/// A line for a person, beside the result.
macro_rules! err {
    ($($text:tt)*) => { $crate::cli::print::to_err(format_args!("{}\n", format_args!($($text)*))) };
}
pub(super) use {err, out};

/// Text that has its line ends.
pub(super) fn to_out(text: fmt::Arguments<'_>) {
    if let Err(error) = io::stdout().lock().write_fmt(text)
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        to_err(format_args!("error: cannot print: {error}\n"));
    }
}

/// Text that has its line ends. There is nobody left to tell if this fails.
pub(super) fn to_err(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
