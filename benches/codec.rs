//! The cases of [`adit_benches::suites::codec`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::codec::SUITE);
}
