//! Two `Mux`es in one process, and the transfer of their output from one to the other.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use adit_codec::{
    Batch, EncodedHead, HttpRequestHead, HttpResponseHead, Open, RequestHead, RequestId, Side,
};
use adit_flow::{Budget, MESSAGE_COST};
use adit_mux::{Attachment, Config, Event, Mux, Receiver};
use bytes::Bytes;

/// The visitors' end, which opens requests.
pub(super) const SERVER: usize = 0;
/// The service's end, which responds.
pub(super) const CLIENT: usize = 1;

/// Both ends of a data stream.
pub(super) struct Ends {
    pub(super) muxes: [Arc<Mux>; 2],
    receivers: [Receiver; 2],
    pub(super) events: Vec<Event>,
}

impl Ends {
    pub(super) fn new() -> Self {
        let end = |side| Mux::new(Config::new(side), Budget::new(64 << 20));
        let muxes = [end(Side::Server), end(Side::Client)];
        let receivers = muxes
            .clone()
            .map(|mux| Receiver::new(mux, Attachment::FIRST));
        Self {
            muxes,
            receivers,
            events: Vec::new(),
        }
    }

    /// Moves all output of one end to the other end, segment by segment.
    pub(super) fn carry(&mut self, from: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(transmit)) =
            self.muxes[from].poll_transmit(Attachment::FIRST, &mut cx)
        {
            for segment in transmit.batch.into_iter().flat_map(Batch::into_segments) {
                let receiver = &mut self.receivers[1 - from];
                receiver.handle_frame(segment, &mut self.events).unwrap();
            }
        }
    }

    /// Takes the requests that have been opened at the service's end, and their bodies.
    pub(super) fn opened(&mut self) -> Vec<(RequestId, Bytes)> {
        let opened = |event| match event {
            Event::Opened {
                id,
                head: RequestHead::Http(head),
                ..
            } => (id, head.body),
            event => panic!("{event:?}"),
        };
        std::mem::take(&mut self.events)
            .into_iter()
            .map(opened)
            .collect()
    }

    /// Takes the complete responses that have been received at the visitors' end.
    pub(super) fn responses(&mut self) -> Vec<(RequestId, Bytes)> {
        let response_of = |event| match event {
            Event::Response { id, mut head, .. } => (id, head.take_body()),
            event => panic!("{event:?}"),
        };
        let responses: Vec<_> = { self.events.drain(..) }.map(response_of).collect();
        for (id, body) in &responses {
            self.muxes[SERVER].consume(*id, cost(body));
        }
        responses
    }

    /// Responds to a request with all of its body.
    pub(super) fn respond(&self, id: RequestId, request_body: &Bytes, body: &[u8]) {
        self.muxes[CLIENT].consume(id, cost(request_body));
        self.muxes[CLIENT]
            .respond(id, response_head(body), true)
            .unwrap();
    }

    /// A round of `count` requests: opened, written, read, responded to with their bodies, written, read, consumed.
    pub(super) fn round(&mut self, count: usize, body: &[u8]) -> usize {
        open(&self.muxes[SERVER], count, body);
        self.carry(SERVER);
        for (id, body) in self.opened() {
            self.respond(id, &body, &body);
        }
        self.carry(CLIENT);
        self.responses().len()
    }
}

/// Opens `count` requests.
pub(super) fn open(server: &Mux, count: usize, body: &[u8]) -> Vec<RequestId> {
    let open: Open = Open {
        request_uuid: [7; 16],
        tunnel: "shop".into(),
        ..Open::default()
    };
    let one = |_| {
        let head = HttpRequestHead {
            open: &open,
            method: "POST",
            scheme: "http",
            authority: b"shop.localhost",
            path: b"/basket",
        };
        let head = head.encode(std::iter::empty(), body).unwrap();
        server.open(head, true, |_| true).unwrap().unwrap()
    };
    (0..count).map(one).collect()
}

pub(super) fn response_head(body: &[u8]) -> EncodedHead {
    let head = HttpResponseHead { status: 200 };
    head.encode(std::iter::empty(), body).unwrap()
}

fn cost(body: &Bytes) -> u64 {
    if body.is_empty() {
        0
    } else {
        body.len() as u64 + MESSAGE_COST
    }
}
