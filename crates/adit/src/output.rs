//! The output of the programs: results on standard output, remarks on standard error.
//!
//! A failed print loses only its text: the disk behind a redirected stream may be full, or the reader of a pipe may
//! have left, and a program that serves requests continues to serve them. `println!` would panic then, so lints forbid
//! it; all output goes through [`outln!`](crate::outln) and [`errln!`](crate::errln).

use std::{
    fmt,
    io::{self, Write},
    sync::OnceLock,
};

use crate::report::Failed;

/// Why text for standard output was lost the first time.
static LOST: OnceLock<String> = OnceLock::new();

/// Prints a line to standard output, as `println!` does, and never panics.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::print_line(format_args!($($text)*)) };
}

/// Prints a line to standard error, as `eprintln!` does, and never panics.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::print_error_line(format_args!($($text)*)) };
}

/// Prints a line to standard output. [`check_written`] reports lost text.
pub fn print_line(text: fmt::Arguments<'_>) {
    lost(write_line(anstream::stdout().lock(), text));
}

/// Prints text that is complete to standard output. [`check_written`] reports lost text.
pub fn write_whole(text: &[u8]) {
    let mut out = io::stdout().lock();
    lost(out.write_all(text).and_then(|()| out.flush()));
}

/// Prints a line to standard error. A failure is ignored: it cannot be reported anywhere.
pub fn print_error_line(text: fmt::Arguments<'_>) {
    let _ = write_line(anstream::stderr().lock(), text);
}

/// For commands whose output is their result: whether all of it was written. A reader that has left, as `head` does, is
/// not a failure.
///
/// # Errors
/// Why the output is incomplete.
pub fn check_written() -> Result<(), Failed> {
    match LOST.get() {
        Some(error) => Err(Failed::other(format!(
            "cannot write to standard output: {error}"
        ))),
        None => Ok(()),
    }
}

/// Writes a line with one call, so that lines of several processes on one terminal do not mix.
fn write_line(mut out: impl Write, text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut line = text.to_string();
    line.push('\n');
    out.write_all(line.as_bytes())?;
    out.flush()
}

fn lost(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full(io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_that_has_gone_loses_nothing() {
        let print = |kind| lost(write_line(Full(kind), format_args!("a")));
        print(io::ErrorKind::BrokenPipe);
        assert!(check_written().is_ok());
        print(io::ErrorKind::StorageFull);
        let error = check_written().expect_err("lost").to_string();
        assert!(
            error.starts_with("cannot write to standard output: "),
            "{error}"
        );
    }
}
