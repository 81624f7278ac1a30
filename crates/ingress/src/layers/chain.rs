//! The order of the layers before routing.

use crate::{
    forward::layer::Layer,
    layers::{
        forwarded::Forwarded, hop_by_hop::HopByHop, permits::Permits,
        trusted_proxies::TrustedProxies, via::Via,
    },
};

/// The layers of an entry of HTTP, in the order in which a request passes them: those of its configuration see the visitor's
/// real address, and a request that one of them responds to takes no permit.
pub fn http_layers(
    via: Via,
    trusted_proxies: TrustedProxies,
    configured: Vec<Box<dyn Layer>>,
    permits: Permits,
) -> Vec<Box<dyn Layer>> {
    let mut layers: Vec<Box<dyn Layer>> = vec![
        Box::new(HopByHop),
        Box::new(via),
        Box::new(Forwarded::new(trusted_proxies)),
    ];
    layers.extend(configured);
    layers.push(Box::new(permits));
    layers
}
