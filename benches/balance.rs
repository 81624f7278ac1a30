//! The cases of [`adit_benches::suites::balance`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::balance::SUITE);
}
