//! Drives two muxes over a pipe, with applications at both ends that follow a plan, and checks what they receive.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use adit_codec::{
    EncodedHead, GrpcRequestHead, HeaderBlock, HttpRequestHead, Open, ProtocolType, RequestHead,
    RequestId, ResetCode, Side, TcpOpenHead, WebSocketFrame, WebSocketRequestHead,
};
use adit_flow::{Budget, MESSAGE_COST};
use adit_mux::{Attachment, Config, Event, Mux, Receiver, SendError, Sendable};
use adit_testkit::{Clock, Pipe, PipeConfig, Received, Rng, Timeline};
use bytes::{Buf, Bytes};

use crate::support::{Bell, heads::own_response, response_head};

/// How an application consumes received payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consumer {
    AtOnce,
    After(Duration),
    /// Payload is not consumed before [`Pair::release_stalled`].
    Stalled,
}

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    WithData,
    Plain,
    Trailers,
}

/// A fault of one end, once `fault_after` bytes have arrived there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    OpenerResets,
    /// The opener resets the request, usually before the head has been sent.
    OpenerResetsAtOnce,
    AcceptorResets,
    BothReset,
    OpenerStops,
    AcceptorStops,
    BothStop,
}

/// One request, the same at both ends: derived from a number in its path.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) protocol: ProtocolType,
    pub(crate) up: usize,
    pub(crate) down: usize,
    /// Bytes of the body in the heads, if credit allows.
    pub(crate) inline: usize,
    pub(crate) interim: bool,
    pub(crate) ending: Ending,
    pub(crate) respond_after_end: bool,
    pub(crate) opener: Consumer,
    pub(crate) acceptor: Consumer,
    pub(crate) fault: Fault,
    pub(crate) fault_after: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 0,
            protocol: ProtocolType::Http,
            up: 0,
            down: 0,
            inline: 0,
            interim: false,
            ending: Ending::WithData,
            respond_after_end: false,
            opener: Consumer::AtOnce,
            acceptor: Consumer::AtOnce,
            fault: Fault::None,
            fault_after: 0,
        }
    }
}

impl Plan {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut length = || {
            let most = *rng.pick(&[0, 10, 3000, 20_000, 120_000]).unwrap();
            rng.within(0, most)
        };
        let (up, down) = (length(), length());
        let mut consumer = || match rng.below(8) {
            0 => Consumer::Stalled,
            n @ 1..=2 => Consumer::After(Duration::from_millis(n as u64 * 7)),
            _ => Consumer::AtOnce,
        };
        let (opener, acceptor) = (consumer(), consumer());
        let fault = match rng.below(21) {
            0 => Fault::OpenerResets,
            1 => Fault::OpenerResetsAtOnce,
            2 => Fault::AcceptorResets,
            3 => Fault::BothReset,
            4 => Fault::OpenerStops,
            5 => Fault::AcceptorStops,
            6 => Fault::BothStop,
            _ => Fault::None,
        };
        let inline = if rng.one_in(2) { rng.below(2500) } else { 0 };
        let interim = rng.one_in(5);
        let endings = [Ending::WithData, Ending::Plain, Ending::Trailers];
        let ending = *rng.pick(&endings).unwrap();
        // UDP flows drop datagrams that do not fit: other tests cover them.
        let protocol = match ending {
            Ending::Trailers => *rng.pick(&[ProtocolType::Http, ProtocolType::Grpc]).unwrap(),
            _ => *rng
                .pick(&[
                    ProtocolType::Http,
                    ProtocolType::Grpc,
                    ProtocolType::WebSocket,
                    ProtocolType::Tcp,
                ])
                .unwrap(),
        };
        Self {
            seed,
            protocol,
            up,
            down,
            inline: if protocol == ProtocolType::WebSocket {
                0
            } else {
                inline
            },
            interim: interim && protocol == ProtocolType::Http,
            ending,
            respond_after_end: rng.one_in(3),
            opener,
            acceptor,
            fault,
            fault_after: rng.below(up.max(down).max(1)),
        }
    }

    fn is_stalled(&self) -> bool {
        self.opener == Consumer::Stalled || self.acceptor == Consumer::Stalled
    }

    fn payload(&self, up: bool, offset: usize, length: usize) -> Bytes {
        let byte = |at: usize| {
            let mixed = (at as u64).wrapping_mul(0x9e37_79b9) ^ self.seed ^ u64::from(up);
            mixed.to_le_bytes()[2]
        };
        (offset..offset + length).map(byte).collect()
    }
}

#[derive(Debug)]
struct Task {
    plan: Plan,
    is_opener: bool,
    begun: bool,
    sent: usize,
    sent_end: bool,
    received: usize,
    received_end: bool,
    /// Cost that has been received and not consumed.
    waiting: u64,
    stopped: bool,
    was_stopped: bool,
    /// Reset from either side.
    reset: bool,
    faulted: bool,
    final_response: bool,
}

impl Task {
    fn new(plan: Plan, is_opener: bool) -> Self {
        Self {
            plan,
            is_opener,
            begun: is_opener,
            sent: 0,
            sent_end: false,
            received: 0,
            received_end: false,
            waiting: 0,
            stopped: false,
            was_stopped: false,
            reset: false,
            faulted: false,
            final_response: false,
        }
    }

    fn to_send(&self) -> usize {
        if self.is_opener {
            self.plan.up
        } else {
            self.plan.down
        }
    }

    fn to_receive(&self) -> usize {
        if self.is_opener {
            self.plan.down
        } else {
            self.plan.up
        }
    }

    fn consumer(&self) -> Consumer {
        if self.is_opener {
            self.plan.opener
        } else {
            self.plan.acceptor
        }
    }

    fn is_done(&self) -> bool {
        let sent = self.sent_end || self.was_stopped;
        let received = (self.received_end && self.waiting == 0) || self.stopped;
        self.reset || (sent && received)
    }
}

struct Node {
    mux: Arc<Mux>,
    receiver: Receiver,
    budget: Budget,
    bell: Arc<Bell>,
    /// The number of wake-ups when the writer parked; `None` while it runs.
    parked_at: Option<usize>,
    /// The rest of the last batch.
    batch: VecDeque<Bytes>,
    tasks: BTreeMap<u64, Task>,
    /// Requests whose turn it is to send.
    ready: VecDeque<u64>,
    rng: Rng,
    lost: bool,
    /// Requests that were stopped or reset here while the events of the current frame were handled: their messages in
    /// the same frame had been read before.
    fresh: Vec<u64>,
}

enum Timer {
    Open { node: usize, plan: Plan },
    Consume { node: usize, id: u64, cost: u64 },
}

pub(crate) struct Pair {
    clock: Clock,
    nodes: [Node; 2],
    /// The pipes from each node to the other one.
    pipes: [Pipe; 2],
    timers: Timeline<Timer>,
}

impl Pair {
    pub(crate) fn new(
        pipes: [PipeConfig; 2],
        mut rng: Rng,
        change: impl Fn(&mut Config, &mut Rng),
    ) -> Self {
        let mut window = None;
        let nodes = [Side::Server, Side::Client].map(|side| {
            let mut config = Config::new(side);
            change(&mut config, &mut rng);
            // The only bound that both ends share.
            config.initial_window = *window.get_or_insert(config.initial_window);
            let budget = Budget::new(8 << 20);
            let mux = Mux::new(config, budget.clone());
            Node {
                receiver: Receiver::new(mux.clone(), Attachment::FIRST),
                mux,
                budget,
                bell: Arc::default(),
                parked_at: None,
                batch: VecDeque::new(),
                tasks: BTreeMap::new(),
                ready: VecDeque::new(),
                rng: rng.split(),
                lost: false,
                fresh: Vec::new(),
            }
        });
        let pipes = pipes.map(|config| Pipe::new(config, rng.split()));
        Self {
            clock: Clock::new(),
            nodes,
            pipes,
            timers: Timeline::new(),
        }
    }

    pub(crate) fn open_at(&mut self, at: Duration, node: usize, seed: u64) {
        let plan = Plan::from_seed(seed);
        self.timers.put(at, Timer::Open { node, plan });
    }

    /// Opens a request whose plan the other end finds in a table of the test: the path is its place there.
    pub(crate) fn open(&mut self, node: usize, plan: Plan) -> u64 {
        self.nodes[node]
            .open(plan)
            .expect("the window has room for no body")
    }

    pub(crate) fn received(&self, node: usize, id: u64) -> usize {
        self.nodes[node]
            .tasks
            .get(&id)
            .map_or(0, |task| task.received)
    }

    pub(crate) fn is_done(&self, node: usize, id: u64) -> bool {
        self.nodes[node].tasks.get(&id).is_some_and(Task::is_done)
    }

    pub(crate) fn batches_sent(&self, node: usize) -> u64 {
        self.nodes[node].mux.stats().batches_sent
    }

    /// Runs until nothing happens any more, or until a given time.
    pub(crate) fn run(&mut self, until: Option<Duration>) {
        loop {
            let mut moved = false;
            let now = self.clock.elapsed();
            while let Some(timer) = self.timers.take_due(now) {
                moved = true;
                match timer {
                    Timer::Open { node, plan } => {
                        self.nodes[node].open(plan);
                    }
                    Timer::Consume { node, id, cost } => self.nodes[node].consume(id, cost),
                }
            }
            let mut next = self.timers.next_at();
            for from in 0..2 {
                moved |= self.nodes[from].send();
                moved |= self.nodes[from].write(&mut self.pipes[from], now);
                match self.pipes[from].read(now) {
                    Received::Frame(frame) => {
                        moved = true;
                        self.receive(1 - from, frame);
                    }
                    Received::Nothing(at) => next = earlier(next, at),
                    Received::Lost => moved |= self.lose(),
                }
            }
            if moved {
                continue;
            }
            match earlier(next, until) {
                Some(next) if until.is_none_or(|until| now < until) => self.clock.advance_to(next),
                _ => return,
            }
        }
    }

    fn receive(&mut self, node: usize, frame: Bytes) {
        let mut events = Vec::new();
        let this = &mut self.nodes[node];
        if this.lost {
            return;
        }
        this.receiver.handle_frame(frame, &mut events).unwrap();
        this.fresh.clear();
        for event in events {
            if let Some((id, cost)) = this.on_event(event)
                && let Consumer::After(delay) = this.tasks[&id].consumer()
            {
                let at = self.clock.elapsed() + delay;
                self.timers.put(at, Timer::Consume { node, id, cost });
            }
        }
    }

    /// Loses either direction: both ends are informed.
    fn lose(&mut self) -> bool {
        if self.nodes[0].lost {
            return false;
        }
        for (node, pipe) in self.nodes.iter_mut().zip(&mut self.pipes) {
            pipe.cut();
            node.lost = true;
            node.mux.close();
            node.ready.clear();
        }
        true
    }

    pub(crate) fn release_stalled(&mut self) {
        for node in &mut self.nodes {
            let ids: Vec<u64> = node.tasks.keys().copied().collect();
            for id in ids {
                let task = node.tasks.get_mut(&id).unwrap();
                if task.consumer() == Consumer::Stalled {
                    task.plan.opener = Consumer::AtOnce;
                    task.plan.acceptor = Consumer::AtOnce;
                    let waiting = task.waiting;
                    node.consume(id, waiting);
                }
            }
        }
    }

    pub(crate) fn assert_only_stalled_are_left(&self, seed: u64) {
        for (side, node) in self.nodes.iter().enumerate() {
            for (id, task) in &node.tasks {
                assert!(
                    task.is_done() || task.plan.is_stalled(),
                    "seed {seed}, node {side}, request {id} waits for ever: {task:?}"
                );
            }
        }
    }

    pub(crate) fn assert_quiet(&self, seed: u64) {
        for (side, node) in self.nodes.iter().enumerate() {
            for (id, task) in &node.tasks {
                let what = format!("seed {seed}, node {side}, request {id}: {task:?}");
                assert!(task.is_done(), "{what}");
                let reset_planned = matches!(
                    task.plan.fault,
                    Fault::OpenerResets
                        | Fault::OpenerResetsAtOnce
                        | Fault::AcceptorResets
                        | Fault::BothReset
                );
                assert!(!task.reset || reset_planned, "{what}");
                let stops = |by: &[Fault]| by.contains(&task.plan.fault);
                let may_be_cut_short = if task.is_opener {
                    stops(&[Fault::OpenerStops, Fault::BothStop])
                } else {
                    stops(&[Fault::AcceptorStops, Fault::BothStop])
                };
                if !task.reset && !may_be_cut_short {
                    assert_eq!(task.received, task.to_receive(), "{what}");
                }
            }
            let stats = node.mux.stats();
            assert_eq!(
                (stats.open, stats.queued),
                (0, 0),
                "seed {seed}, node {side}: {stats:?}"
            );
            assert_eq!(stats.violations, 0, "seed {seed}, node {side}: {stats:?}");
            assert_eq!(node.budget.used(), 0, "seed {seed}, node {side}");
            assert!(node.receiver.is_between_messages());
            assert!(node.batch.is_empty() && node.ready.is_empty());
        }
        // The other end received every request, except those that were reset before they could be sent.
        for (one, other) in [(0, 1), (1, 0)] {
            for (id, task) in &self.nodes[one].tasks {
                if !task.reset {
                    assert!(
                        self.nodes[other].tasks.contains_key(id),
                        "seed {seed}, request {id}"
                    );
                }
            }
            let (sent, received) = (self.nodes[one].mux.stats(), self.nodes[other].mux.stats());
            assert_eq!(sent.bytes_sent, self.pipes[one].written(), "seed {seed}");
            assert!(
                received.messages_received >= sent.messages_sent,
                "parts count one by one"
            );
        }
    }

    pub(crate) fn assert_lost_and_droppable(self, seed: u64) {
        let lost = self.nodes[0].lost;
        for (side, node) in self.nodes.into_iter().enumerate() {
            if !lost {
                continue;
            }
            // Calls of tasks after the loss have no effect.
            for (&id, task) in &node.tasks {
                let id = RequestId::new(id);
                let _ = node.mux.sendable(id);
                let _ = node.mux.send(id, Bytes::new(), true);
                node.mux.consume(id, task.waiting);
                if id.value().is_multiple_of(3) {
                    node.mux.reset(id, ResetCode::Cancelled, "");
                }
            }
            let waker = Waker::from(node.bell.clone());
            let mut cx = Context::from_waker(&waker);
            let mut batches = 0;
            while let Poll::Ready(Some(_)) = node.mux.poll_transmit(Attachment::FIRST, &mut cx) {
                batches += 1;
                assert!(
                    batches < 1_000_000,
                    "seed {seed}, node {side}: the writer does not end"
                );
            }
            assert!(matches!(
                node.mux.poll_transmit(Attachment::FIRST, &mut cx),
                Poll::Ready(None)
            ));
            drop(node.receiver);
            assert_eq!(Arc::strong_count(&node.mux), 1);
            drop(node.mux);
            assert_eq!(node.budget.used(), 0, "seed {seed}, node {side}");
        }
    }
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A plan as a path.
fn path_of(plan: &Plan) -> String {
    if plan.seed != 0 {
        return format!("/{}", plan.seed);
    }
    format!(
        "/0/{}/{}/{:?}/{}/{}/{}",
        plan.up,
        plan.down,
        plan.fault,
        plan.fault_after,
        u8::from(plan.acceptor == Consumer::Stalled),
        u8::from(plan.ending == Ending::Trailers)
    )
}

fn plan_of(path: &[u8]) -> Plan {
    let path = std::str::from_utf8(path).unwrap();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.len() == 1 {
        return Plan::from_seed(parts[0].parse().unwrap());
    }
    let faults = [
        Fault::None,
        Fault::BothReset,
        Fault::OpenerResetsAtOnce,
        Fault::BothStop,
    ];
    let fault = faults
        .into_iter()
        .find(|fault| format!("{fault:?}") == parts[3])
        .unwrap();
    Plan {
        up: parts[1].parse().unwrap(),
        down: parts[2].parse().unwrap(),
        fault,
        fault_after: parts[4].parse().unwrap(),
        acceptor: if parts[5] == "1" {
            Consumer::Stalled
        } else {
            Consumer::AtOnce
        },
        ending: if parts[6] == "1" {
            Ending::Trailers
        } else {
            Ending::WithData
        },
        ..Plan::default()
    }
}

/// A head that carries the plan where its protocol has room for it.
fn opening(protocol: ProtocolType, open: &Open, path: &str, body: &[u8]) -> EncodedHead {
    let (local, authority, path) = (path, &b"a"[..], path.as_bytes());
    let none = std::iter::empty();
    match protocol {
        ProtocolType::Http => {
            let (method, scheme) = ("POST", "http");
            let head = HttpRequestHead {
                open,
                method,
                scheme,
                authority,
                path,
            };
            head.encode(none, body)
        }
        ProtocolType::Grpc => {
            let timeout = None;
            let head = GrpcRequestHead {
                open,
                authority,
                path,
                timeout,
            };
            head.encode(none, body)
        }
        ProtocolType::WebSocket => {
            let head = WebSocketRequestHead {
                open,
                authority,
                path,
            };
            head.encode(none)
        }
        ProtocolType::Tcp => TcpOpenHead { open, local }.encode(body),
        other => panic!("{other:?} is not played here"),
    }
    .unwrap()
}

fn path_in(head: &RequestHead) -> &[u8] {
    match head {
        RequestHead::Http(head) => &head.path,
        RequestHead::Grpc(head) => &head.path,
        RequestHead::WebSocket(head) => &head.path,
        RequestHead::Tcp(head) => head.local.as_bytes(),
        RequestHead::Udp(_) => panic!("unexpected opening of a flow"),
    }
}

/// The frame that begins at an offset; its bits are derived from the offset.
fn frame_of(offset: usize, length: usize) -> WebSocketFrame {
    let [low, high, ..] = offset.to_le_bytes();
    WebSocketFrame {
        fin: low & 1 == 1,
        rsv: low >> 5,
        opcode: high & 0xf,
        length: length as u64,
    }
}

fn trailers() -> HeaderBlock {
    [(&b"x-sum"[..], &b"7"[..])].into_iter().collect()
}

impl Node {
    fn open(&mut self, plan: Plan) -> Option<u64> {
        if self.lost {
            return None;
        }
        let mut inline = plan.inline.min(plan.up);
        let open: Open = Open {
            request_uuid: [1; 16],
            ..Open::default()
        };
        let path = path_of(&plan);
        let id = loop {
            let body = plan.payload(true, 0, inline);
            let head = opening(plan.protocol, &open, &path, &body);
            let end = inline == plan.up && plan.ending == Ending::WithData;
            match self.mux.open(head, end, |_| true) {
                Ok(id) => break id.unwrap().value(),
                // The window is too small for the body in the head.
                Err(_) => inline = 0,
            }
        };
        let mut task = Task::new(plan, true);
        task.sent = inline;
        task.sent_end = inline == task.plan.up && task.plan.ending == Ending::WithData;
        let at_once = task.plan.fault == Fault::OpenerResetsAtOnce;
        self.tasks.insert(id, task);
        self.ready.push_back(id);
        if at_once && self.rng.one_in(2) {
            self.send();
        }
        if at_once {
            self.reset(id);
        }
        Some(id)
    }

    /// Resets a request, unless its end has been read already and is still to be handled.
    fn reset(&mut self, id: u64) {
        let task = self.tasks.get_mut(&id).unwrap();
        if !task.reset
            && !task.is_done()
            && self
                .mux
                .reset(RequestId::new(id), ResetCode::Cancelled, "test")
        {
            task.reset = true;
            self.fresh.push(id);
        }
    }

    fn consume(&mut self, id: u64, cost: u64) {
        let task = self.tasks.get_mut(&id).unwrap();
        task.waiting = task.waiting.saturating_sub(cost);
        self.mux.consume(RequestId::new(id), cost);
    }

    /// Lets every request in `ready` send.
    fn send(&mut self) -> bool {
        let mut moved = false;
        while let Some(id) = self.ready.pop_front() {
            moved = true;
            self.send_all(id);
        }
        moved
    }

    fn send_all(&mut self, id: u64) {
        let request = RequestId::new(id);
        let task = self.tasks.get_mut(&id).unwrap();
        if !task.begun {
            if task.plan.respond_after_end && !(task.received_end || task.stopped) {
                return;
            }
            if task.reset || task.was_stopped {
                return;
            }
            task.begun = true;
            if task.plan.interim {
                self.mux
                    .respond(request, response_head(100, b""), false)
                    .unwrap();
            }
            let inline = match task.plan.protocol {
                ProtocolType::Tcp => 0,
                _ => task.plan.inline.min(task.plan.down),
            };
            let protocol = task.plan.protocol;
            let ends = |inline| inline == task.plan.down && task.plan.ending == Ending::WithData;
            let body = task.plan.payload(false, 0, inline);
            let with_body = self
                .mux
                .respond(request, own_response(protocol, &body), ends(inline));
            let sent = match with_body {
                Ok(()) => inline,
                Err(SendError::NoCredit(_)) => {
                    self.mux
                        .respond(request, own_response(protocol, b""), ends(0))
                        .unwrap();
                    0
                }
                Err(error) => panic!("{error}: {task:?}"),
            };
            task.sent = sent;
            task.sent_end = ends(sent);
        }
        while !(task.reset || task.was_stopped || task.sent_end) {
            let left = task.to_send() - task.sent;
            if left == 0 {
                match task.plan.ending {
                    Ending::Trailers => self.mux.send_trailers(request, trailers()).unwrap(),
                    _ => self.mux.send(request, Bytes::new(), true).unwrap(),
                }
                task.sent_end = true;
                return;
            }
            match self.mux.sendable(request) {
                Ok(Sendable::Now(bytes)) => {
                    let most = *self
                        .rng
                        .pick(&[1 << 20, 1 << 20, 1 << 20, 3000, 50])
                        .unwrap();
                    let bytes = bytes.min(left).min(most);
                    let data = if task.plan.up > 1 << 30 {
                        Bytes::from_static(&[0; 64 * 1024]).slice(..bytes)
                    } else {
                        task.plan.payload(task.is_opener, task.sent, bytes)
                    };
                    let end = bytes == left && task.plan.ending == Ending::WithData;
                    if task.plan.protocol == ProtocolType::WebSocket && self.rng.one_in(2) {
                        let frame = frame_of(task.sent, bytes);
                        self.mux.send_frame(request, frame, data, end).unwrap();
                    } else {
                        self.mux.send(request, data, end).unwrap();
                    }
                    task.sent += bytes;
                    task.sent_end = end;
                }
                Ok(Sendable::Later) => return,
                Err(error) => panic!("{error}: request {id}, {task:?}"),
            }
        }
    }

    /// Moves the batches of the mux into the pipe, as a writer that sleeps until it is woken.
    fn write(&mut self, pipe: &mut Pipe, now: Duration) -> bool {
        let mut moved = false;
        loop {
            while let Some(segment) = self.batch.front_mut() {
                let taken = pipe.write(now, segment);
                segment.advance(taken);
                moved |= taken > 0;
                if !segment.is_empty() {
                    return moved;
                }
                self.batch.pop_front();
            }
            if self.lost || self.parked_at == Some(self.bell.rung()) {
                return moved;
            }
            let waker = Waker::from(self.bell.clone());
            match self
                .mux
                .poll_transmit(Attachment::FIRST, &mut Context::from_waker(&waker))
            {
                Poll::Ready(Some(transmit)) => {
                    moved = true;
                    self.parked_at = None;
                    self.ready
                        .extend(transmit.writable.iter().map(|id| id.value()));
                    self.batch.extend(
                        transmit
                            .batch
                            .into_iter()
                            .flat_map(adit_codec::Batch::into_segments),
                    );
                }
                Poll::Ready(None) => return moved,
                Poll::Pending => self.parked_at = Some(self.bell.rung()),
            }
        }
    }

    /// Handles one event; returns the cost that is to be consumed later.
    fn on_event(&mut self, event: Event) -> Option<(u64, u64)> {
        let body_cost = |body: &Bytes| match body.len() as u64 {
            0 => 0,
            length => length + MESSAGE_COST,
        };
        let of = match &event {
            Event::Response { id, .. }
            | Event::Data { id, .. }
            | Event::Frame { id, .. }
            | Event::Trailers { id, .. }
            | Event::End { id } => Some(id.value()),
            Event::Stopped { id, .. } | Event::Writable { id } | Event::Reset { id, .. } => {
                Some(id.value()).filter(|id| self.tasks[id].reset)
            }
            _ => None,
        };
        if of.is_some_and(|id| self.fresh.contains(&id)) {
            return None;
        }
        match event {
            Event::Opened { id, mut head, end } => {
                let id = id.value();
                let plan = plan_of(path_in(&head));
                assert_eq!(head.protocol(), plan.protocol);
                let task = Task::new(plan, false);
                assert!(self.tasks.insert(id, task).is_none(), "opened twice");
                let body = head.take_body();
                let then = self.on_data(id, &body, body_cost(&body), end);
                self.ready.push_back(id);
                then
            }
            Event::Response { id, mut head, end } => {
                let id = id.value();
                let task = self.live(id);
                assert!(!task.final_response && task.is_opener);
                assert!(head.responds_to(task.plan.protocol));
                task.final_response = head.is_final();
                let body = head.take_body();
                self.on_data(id, &body, body_cost(&body), end)
            }
            Event::Data {
                id,
                data,
                cost,
                end,
            } => {
                let id = id.value();
                let task = self.live(id);
                assert!(
                    task.final_response || !task.is_opener,
                    "data before the response"
                );
                self.on_data(id, &data, cost, end)
            }
            Event::Frame {
                id,
                frame,
                data,
                cost,
                end,
            } => {
                let id = id.value();
                let task = self.live(id);
                assert!(
                    task.final_response || !task.is_opener,
                    "a frame before the response"
                );
                assert_eq!(task.plan.protocol, ProtocolType::WebSocket);
                assert_eq!(frame, frame_of(task.received, data.len()));
                assert_eq!(cost, data.len() as u64 + MESSAGE_COST);
                self.on_data(id, &data, cost, end)
            }
            Event::Trailers {
                id,
                trailers: lines,
            } => {
                assert_eq!(lines, trailers());
                assert_eq!(self.live(id.value()).plan.ending, Ending::Trailers);
                self.on_data(id.value(), &Bytes::new(), 0, true)
            }
            Event::End { id } => self.on_data(id.value(), &Bytes::new(), 0, true),
            Event::Writable { id } => {
                self.ready.push_back(id.value());
                None
            }
            Event::Stopped { id, .. } => {
                let task = self.live(id.value());
                assert!(!task.was_stopped, "stopped twice");
                task.was_stopped = true;
                None
            }
            Event::Reset { id, by_peer, .. } => {
                let task = self.live(id.value());
                assert!(by_peer, "unexpected violation: {task:?}");
                task.reset = true;
                None
            }
            other => panic!("{other:?}"),
        }
    }

    /// The request of an event, which must not have ended already.
    fn live(&mut self, id: u64) -> &mut Task {
        let task = self.tasks.get_mut(&id).unwrap();
        assert!(!task.reset, "request {id} ends twice: {task:?}");
        task
    }

    fn on_data(&mut self, id: u64, data: &Bytes, cost: u64, end: bool) -> Option<(u64, u64)> {
        let task = self.live(id);
        assert!(
            !task.received_end && !task.stopped,
            "after the end: {task:?}"
        );
        if task.plan.up < 1 << 30 {
            let expected = task
                .plan
                .payload(!task.is_opener, task.received, data.len());
            assert_eq!(*data, expected, "request {id} at {}", task.received);
        }
        task.received += data.len();
        task.received_end = end;
        task.waiting += cost;
        if end {
            // The body is shorter than planned only when it was stopped, which ends in a plain end.
            assert_eq!(task.received, task.to_receive(), "{task:?}");
        }
        let at_once = task.consumer() == Consumer::AtOnce;
        self.ready.push_back(id);
        if at_once {
            self.consume(id, cost);
        }
        self.fault(id);
        (cost > 0).then_some((id, cost))
    }

    fn fault(&mut self, id: u64) {
        let task = self.tasks.get_mut(&id).unwrap();
        if task.faulted || task.received < task.plan.fault_after {
            return;
        }
        let (resets, stops) = match (task.plan.fault, task.is_opener) {
            (Fault::BothReset, _)
            | (Fault::OpenerResets, true)
            | (Fault::AcceptorResets, false) => (true, false),
            (Fault::BothStop, _) | (Fault::OpenerStops, true) | (Fault::AcceptorStops, false) => {
                (false, true)
            }
            _ => (false, false),
        };
        task.faulted = true;
        if stops {
            task.stopped = true;
            task.waiting = 0;
            self.fresh.push(id);
            self.mux
                .stop_sending(RequestId::new(id), ResetCode::Cancelled);
        }
        if resets {
            self.reset(id);
        }
    }
}
