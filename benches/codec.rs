//! The cases of [`adit_benches::suites::codec`] under criterion.

mod speed;

fn main() {
    speed::bench(&adit_benches::suites::codec::SUITE);
}
