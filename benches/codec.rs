//! The cases of [`adit_benches::rooms::codec`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::codec::ROOM);
}
