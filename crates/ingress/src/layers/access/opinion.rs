//! The opinion of one access rule about a visitor.

use crate::forward::denial::Denial;

/// The opinion of a rule about a visitor. Each rule states one: an opinion by default would admit visitors by mistake.
#[derive(Debug)]
pub(super) enum Opinion {
    /// The rule has nothing against the visitor, and proves nothing: a rate that is not exceeded.
    Pass,
    /// The visitor has proved what the rule asks for.
    Granted,
    /// The visitor has not proved what the rule asks for. Another rule may grant access instead.
    Unproven(Box<Denial>),
    /// The visitor is not admitted, whatever it proves.
    Denied(Box<Denial>),
}

impl Opinion {
    pub(super) fn unproven(denial: Denial) -> Self {
        Self::Unproven(Box::new(denial.unproven()))
    }

    pub(super) fn denied(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}
