//! The cases of [`adit_benches::suites::path`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::path::SUITE);
}
