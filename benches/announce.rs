//! The cases of [`adit_benches::suites::announce`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::announce::SUITE);
}
