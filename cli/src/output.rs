//! Standard output. A reader that has seen enough (`twillctl get nodes | head`) ends the command quietly.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Writes to standard output.
pub(crate) fn write(text: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("writing to standard output: {error}");
    std::process::exit(1);
}

/// `out!("..")` prints, `out!(ln "..")` prints a line; like the standard macros, but a closed pipe is no panic.
macro_rules! out {
    (ln $($text:tt)+) => { $crate::output::write(format_args!("{}\n", format_args!($($text)+))) };
    ($($text:tt)+) => { $crate::output::write(format_args!($($text)+)) };
}
pub(crate) use out;
