//! The cases of [`adit_benches::rooms::announce`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::announce::ROOM);
}
