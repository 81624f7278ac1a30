//! The cases of [`adit_benches::suites::flow`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::suites::flow::SUITE);
}
