//! The cases of [`adit_benches::suites::flow`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::flow::SUITE);
}
