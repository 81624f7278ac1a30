//! The cases of [`adit_benches::suites::announce`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::announce::SUITE);
}
