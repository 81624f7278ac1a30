//! The default number of data threads of a server.

use std::thread;

/// Data threads on this machine.
pub(crate) fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| threads_on(cores.get()))
}

/// The number of data threads: one on up to two cores, otherwise one less than cores.
fn threads_on(cores: usize) -> usize {
    if cores > 2 { cores - 1 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_left_where_there_are_more_than_two() {
        assert_eq!([1, 2, 3, 4, 64].map(threads_on), [1, 1, 2, 3, 63]);
    }
}
