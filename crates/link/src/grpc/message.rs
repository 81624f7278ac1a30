//! Control messages on the wire.

use adit_proto::{Control, MessageType, ProtocolType, TunnelMessage, tunnel_message::Payload};

use crate::control::ControlMessage;

/// The message as a control stream carries it.
pub(super) fn wire_message(message: ControlMessage) -> TunnelMessage {
    TunnelMessage {
        request_id: message.request_id,
        protocol_type: ProtocolType::Control.into(),
        message_type: MessageType::Control.into(),
        payload: Some(Payload::Control(Control { kind: message.kind })),
        ..TunnelMessage::default()
    }
}
