//! The cases of [`adit_benches::suites::pending`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::pending::SUITE);
}
