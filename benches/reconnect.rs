//! The cases of [`adit_benches::suites::reconnect`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::reconnect::SUITE);
}
