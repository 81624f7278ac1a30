//! Announcing into a full directory: one client's ten tunnels with two hosts each are added, and ten existing tunnels
//! are removed, so that `size` tunnels remain. Afterwards visitors can be routed by the new tunnels.
//!
//! A directory has one thread that changes it, so the cases are for one thread.

use std::hint::black_box;

use crate::{
    baseline::announce::{Announced, Copied, MadeAnew, Ours, Routes},
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Suite},
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "announce",
    cases,
    quality: Vec::new,
    memory,
};

/// The last size is that of 880 clients with ten tunnels each.
const TUNNELS: [usize; 3] = [100, 1_000, 8_800];
const PER_CLIENT: usize = 10;

fn client(number: usize) -> Vec<Announced> {
    (0..PER_CLIENT)
        .map(|tunnel| Announced {
            hosts: [
                format!("tunnel-{tunnel}-of-{number}.example.com"),
                format!("tunnel-{tunnel}-of-{number}.localhost"),
            ],
            target: number * PER_CLIENT + tunnel,
        })
        .collect()
}

/// A directory with this many tunnels, and the number of the next client.
fn full<R: Routes>(tunnels: usize) -> (R, usize) {
    let mut routes = R::empty();
    // All tunnels are added at once: added one by one, a large directory takes the naive design minutes.
    let all = (0..tunnels / PER_CLIENT).flat_map(client).collect();
    routes.announce_all(all);
    (routes, tunnels / PER_CLIENT)
}

fn announce<R: Routes + Send + 'static>(size: usize) -> Case {
    let worker = move || {
        let (mut routes, mut next) = full::<R>(size);
        let work = move |times: u64| {
            for _ in 0..times {
                routes.announce(client(next), size);
                let host = format!("tunnel-9-of-{next}.example.com:8080");
                assert_eq!(black_box(routes.find(&host)), Some(next * PER_CLIENT + 9));
                next += 1;
            }
        };
        Box::new(work) as _
    };
    Case::alone("announce", (R::NAME, R::ROLE), size, worker).single()
}

fn cases() -> Vec<Case> {
    TUNNELS
        .into_iter()
        .flat_map(|size| {
            [
                announce::<MadeAnew>(size),
                announce::<Copied>(size),
                announce::<Ours>(size),
            ]
        })
        .collect()
}

/// The memory of a tunnel, with the current routes and the next ones.
fn held<R: Routes>(meter: &Meter, figures: &mut Vec<Figure>) {
    for size in TUNNELS {
        let bytes = meter.per_entry(size, || full::<R>(size));
        figures.push(Figure::new(
            "announce",
            R::NAME,
            size,
            BYTES_PER_ENTRY,
            bytes,
        ));
    }
}

fn memory(meter: &Meter) -> Vec<Figure> {
    let mut figures = Vec::new();
    held::<MadeAnew>(meter, &mut figures);
    held::<Copied>(meter, &mut figures);
    held::<Ours>(meter, &mut figures);
    figures
}
