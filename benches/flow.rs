//! The cases of [`adit_benches::rooms::flow`] under criterion.

fn main() {
    adit_benches::speed::bench(&adit_benches::rooms::flow::ROOM);
}
