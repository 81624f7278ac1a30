//! The cases of [`adit_benches::suites::reconnect`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::reconnect::SUITE);
}
