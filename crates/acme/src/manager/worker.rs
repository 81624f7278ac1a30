//! The loop of a manager.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::sleep,
};

use super::{
    context::{Context, ended},
    first_orders::FirstOrders,
    plan::{Loaded, Plan, unread_text},
    shared::{Publish, Shared, Update},
    stored::Stored,
    wanted::Wanted,
    work::{self, Done},
};
use crate::{
    name::CertName,
    order::{Ended, Seen},
    schedule::{Cause, Environment, Failure, Outcome, Pace, Reason},
    status::Stats,
};

/// The longest sleep: a clock that jumps, or a machine that was suspended, is noticed after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The shortest sleep between two looks at all names.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

pub(super) struct Worker {
    context: Arc<Context>,
    shared: Arc<Shared>,
    publish: Publish,
    plans: BTreeMap<CertName, Plan>,
    /// Names that are wanted and have no place.
    left_out: BTreeMap<CertName, Wanted>,
    stored: Stored,
    first_orders: FirstOrders,
    tasks: JoinSet<Done>,
    running: HashMap<Id, CertName>,
    production: Pace,
    staging: Pace,
}

impl Worker {
    /// Reads what is stored. Blocks.
    pub(super) fn new(context: Arc<Context>, shared: Arc<Shared>, publish: Publish) -> Self {
        let pace = Pace::new(context.policy.account_orders);
        let mut first_orders = FirstOrders::new(&context.policy);
        let stored = Stored::read(&context, &mut first_orders, &publish, SystemTime::now());
        Self {
            context,
            shared,
            publish,
            plans: BTreeMap::new(),
            left_out: BTreeMap::new(),
            stored,
            first_orders,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            production: pace.clone(),
            staging: pace,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            let wanted = self.shared.wanted.lock().take();
            if let Some(names) = wanted {
                self.adopt(names).await;
            }
            self.read_again().await;
            self.tidy().await;
            let now = SystemTime::now();
            let next = self.stored.withdraw_expired(&self.publish, now);
            let sleep_for = self.start_due(now, next);
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.shared.changed.notified() => {}
                Some(done) = self.tasks.join_next_with_id() => self.on_done(done).await,
                () = sleep(sleep_for) => {}
            }
        }
        while let Some(done) = self.tasks.join_next_with_id().await {
            self.on_done(done).await;
        }
    }

    /// Replaces the set of names. Known ones have precedence when there are too many.
    async fn adopt(&mut self, mut names: BTreeMap<CertName, Wanted>) {
        let unwanted: Vec<_> = { self.plans.keys() }
            .filter(|name| !names.contains_key(name))
            .cloned()
            .collect();
        for name in unwanted {
            self.withdraw(&name);
        }
        for (name, plan) in &mut self.plans {
            // Also one whose order still runs from before.
            if let Some(wanted) = names.remove(name) {
                plan.set_wanted(&self.context, wanted);
            }
        }
        self.left_out = names;
        self.fill().await;
        let ignored = self.left_out.len();
        if ignored > 0 {
            let most = self.context.settings.max_names;
            tracing::warn!(
                ignored,
                "more than {most} names want a certificate (`server.https.acme.max_names`): some get none"
            );
        }
        // Also of those whose order ran while they were not wanted.
        let names: Vec<_> = self.plans.keys().cloned().collect();
        for name in names {
            let is_new = !self.shared.status.lock().contains_key(&name);
            self.show(&name);
            if is_new {
                self.publish(&name);
            }
        }
    }

    /// Gives places to names that have none, as far as there are any.
    async fn fill(&mut self) {
        let most = self.context.settings.max_names;
        let room = most.saturating_sub(self.plans.len());
        let names: Vec<_> = self.left_out.keys().take(room).cloned().collect();
        for (name, loaded) in self.read(names).await {
            let Some(wanted) = self.left_out.remove(&name) else {
                continue;
            };
            if let Some(error) = loaded.damaged.as_ref().or(loaded.unreadable.as_ref()) {
                tracing::warn!(%name, "{error}");
                self.count(|stats| stats.store_errors += 1);
            }
            if loaded.certificate.is_some() {
                self.stored.adopted(&name);
            }
            let plan = Plan::new(&self.context, wanted, loaded, rand::random());
            self.plans.insert(name, plan);
        }
        self.shared.stats.lock().names_ignored = self.left_out.len() as u64;
    }

    /// Reads what is stored of names. A store that does not finish has not been read.
    async fn read(&self, names: Vec<CertName>) -> Vec<(CertName, Loaded)> {
        if names.is_empty() {
            return Vec::new();
        }
        let read = self.context.with_store({
            let names = names.clone();
            move |store, ca| -> Vec<_> {
                { names.into_iter() }
                    .map(|name| {
                        let loaded = Loaded::read(store, ca, &name);
                        (name, loaded)
                    })
                    .collect()
            }
        });
        read.await.unwrap_or_else(|| {
            { names.into_iter() }
                .map(|name| {
                    let loaded = Loaded::unreadable(ended(&name));
                    (name, loaded)
                })
                .collect()
        })
    }

    /// Reads names again of which the store could not be read.
    async fn read_again(&mut self) {
        let now = SystemTime::now();
        let due =
            { self.plans.iter() }.filter(|(_, plan)| plan.read_at().is_some_and(|at| at <= now));
        let due: Vec<_> = due.map(|(name, _)| name.clone()).collect();
        for (name, loaded) in self.read(due).await {
            let Some(plan) = self.plans.get_mut(&name) else {
                continue;
            };
            if let Some(error) = loaded.unreadable {
                tracing::warn!(%name, "{}", unread_text(&name, &error));
                plan.on_unreadable(&self.context, error, rand::random());
                self.count(|stats| stats.store_errors += 1);
            } else {
                tracing::info!(%name, "what is stored of the name can be read again");
                let wanted = plan.wanted_as(&name);
                self.stored.adopted(&name);
                *plan = Plan::new(&self.context, wanted, loaded, rand::random());
                self.publish(&name);
            }
            self.show(&name);
        }
    }

    /// Removes what is stored of unused names.
    async fn tidy(&mut self) {
        let (plans, left_out) = (&self.plans, &self.left_out);
        let used = || plans.keys().chain(left_out.keys()).cloned().collect();
        let tidied = self.stored.tidy(&self.context, used, SystemTime::now());
        match tidied.await {
            Ok(0) => {}
            Ok(removed) => {
                tracing::info!(
                    removed,
                    "files of names that have no tunnels any more are removed"
                );
            }
            Err(error) => tracing::warn!("files of unused names cannot be removed: {error}"),
        }
    }

    fn withdraw(&mut self, name: &CertName) {
        let Some(plan) = self.plans.get_mut(name) else {
            return;
        };
        let busy = plan.schedule.is_running() || plan.asking;
        plan.wanted = false;
        if !busy {
            self.plans.remove(name);
        }
        self.stored.adopted(name);
        if self.shared.status.lock().remove(name).is_some() {
            let name = name.clone();
            (self.publish)(Update::Withdrawn { name });
        }
    }

    /// Starts what is due, and returns the time until something will be, at the latest `next`.
    fn start_due(&mut self, now: SystemTime, next: SystemTime) -> Duration {
        let mut next = next.min(now + LONGEST_SLEEP);
        while self.running.len() < self.context.settings.max_orders.max(1) {
            let (due, later) = self.due(now);
            next = next.min(later);
            let Some((name, is_order)) = due else { break };
            if is_order {
                self.start_order(name, now);
            } else {
                self.start_question(name);
            }
        }
        let wait = next.duration_since(now).unwrap_or_default();
        wait.max(SHORTEST_SLEEP)
    }

    /// What is due now, and when the next thing will be. Renewals precede first orders, fewer failures more of them, and orders
    /// questions.
    fn due(&mut self, now: SystemTime) -> (Option<(CertName, bool)>, SystemTime) {
        let (mut later, mut best, mut question) = (now + LONGEST_SLEEP, None, None);
        let paces = [false, true].map(|is_renewal| Paces {
            production: self.production.ready_at(now, is_renewal),
            staging: self.staging.ready_at(now, is_renewal),
        });
        let [of_first, of_renewals] = paces;
        let mut changed = Vec::new();
        for (name, plan) in &mut self.plans {
            if let Some(at) = plan.read_at() {
                later = later.min(at);
            }
            if let Some(at) = plan.question_at(now) {
                if at <= now {
                    question = Some(name);
                } else {
                    later = later.min(at);
                }
            }
            let was_held = plan.held.take();
            let Some(at) = plan.order_at(now) else {
                continue;
            };
            let paces = if plan.is_first() {
                &of_first
            } else {
                &of_renewals
            };
            let (environment, paced) = paces.of(plan.environment());
            let mut at = paced.map_or(at, |paced| paced.max(at));
            if at <= now && plan.is_first() && environment == Environment::Production {
                plan.held = self.first_orders.hold(name, &plan.owner, now);
                at = plan.held.map_or(at, |held| held.until);
            }
            if plan.held != was_held {
                changed.push(name.clone());
            }
            if at > now {
                later = later.min(at);
                continue;
            }
            let mut others = self.running.values();
            if others.any(|other| self.context.share_record(name, other)) {
                continue;
            }
            let order = (plan.is_first(), plan.schedule.record().failures);
            if best.as_ref().is_none_or(|(first, _)| order < *first) {
                best = Some((order, name));
            }
        }
        let order = best.map(|(_, name)| (name.clone(), true));
        let due = order.or_else(|| question.map(|name| (name.clone(), false)));
        for name in changed {
            self.on_held(&name, now);
        }
        (due, later)
    }

    /// The first order of a name waits for those of others, or does not any more.
    fn on_held(&self, name: &CertName, now: SystemTime) {
        let plan = { self.plans.get(name) }.filter(|plan| plan.held.is_some());
        if let Some(text) = plan.and_then(|plan| plan.quota(name, now)) {
            tracing::warn!("{text}");
        }
        self.show(name);
    }

    fn pace(&mut self, environment: Environment) -> &mut Pace {
        match environment {
            Environment::Production => &mut self.production,
            Environment::Staging => &mut self.staging,
        }
    }

    fn start_order(&mut self, name: CertName, now: SystemTime) {
        let Some(plan) = self.plans.get_mut(&name) else {
            return;
        };
        let reason = plan.schedule.next_order(now).map(|next| next.reason);
        let is_first = plan.is_first();
        if plan.environment() == Environment::Staging
            && self.staging.ready_at(now, !is_first).is_some()
        {
            plan.schedule.on_staging_paused();
        }
        let environment = plan.schedule.on_started(now);
        if is_first
            && environment == Environment::Production
            && self.first_orders.add(&name, &plan.owner, now, now)
        {
            plan.on_first_order(now);
        }
        let own = plan.certificate.as_ref().and_then(|own| own.renewal_id());
        let replaces = own
            .filter(|_| environment == Environment::Production)
            .cloned();
        let record = plan.stored();
        self.count(|stats| {
            stats.orders += 1;
            stats.renewals_by_window += u64::from(reason == Some(Reason::Window));
        });
        self.pace(environment).on_started(now);
        let reason = reason.map(Reason::name);
        tracing::info!(%name, reason, ?environment, "a certificate is ordered");
        self.show(&name);
        let work = work::order(
            self.context.clone(),
            name.clone(),
            environment,
            record,
            replaces,
        );
        self.running.insert(self.tasks.spawn(work).id(), name);
    }

    fn start_question(&mut self, name: CertName) {
        let Some(plan) = self.plans.get_mut(&name) else {
            return;
        };
        let id = plan.certificate.as_ref().and_then(|own| own.renewal_id());
        let Some(id) = id.cloned() else { return };
        plan.asking = true;
        let work = work::window(self.context.clone(), name.clone(), id);
        self.running.insert(self.tasks.spawn(work).id(), name);
    }

    async fn on_done(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        let Some(name) = self.running.remove(&id) else {
            return;
        };
        match done {
            Some(Done::Window { window, ask_after }) => {
                if let Some(plan) = self.plans.get_mut(&name) {
                    plan.asking = false;
                    let random = rand::random();
                    plan.schedule
                        .on_window(window, ask_after, SystemTime::now(), random);
                }
            }
            Some(Done::Order {
                ended,
                environment,
                seen,
                unstored,
            }) => {
                self.on_ended(&name, &ended, environment, seen);
                if let Some(error) = unstored {
                    self.unstored(&name, &error.to_string());
                }
                self.store_record(&name).await;
            }
            None => self.on_panic(&name),
        }
        let left = { self.plans.get(&name) }.is_some_and(|plan| !plan.wanted);
        if left {
            self.plans.remove(&name);
            self.refill().await;
        }
        self.show(&name);
    }

    /// A name has left its place to one that had none.
    async fn refill(&mut self) {
        if self.left_out.is_empty() {
            return;
        }
        let before: Vec<_> = self.left_out.keys().cloned().collect();
        self.fill().await;
        for name in before {
            if self.plans.contains_key(&name) {
                self.show(&name);
                self.publish(&name);
            }
        }
    }

    fn on_ended(&mut self, name: &CertName, ended: &Ended, environment: Environment, seen: Seen) {
        let (now, random) = (SystemTime::now(), rand::random());
        if seen.accepted {
            self.pace(environment).on_accepted();
        }
        self.count(|stats| stats.replaces_refused += u64::from(seen.replaces_refused));
        let certainly_not = match ended {
            Ended::Issued(_) => environment == Environment::Staging,
            Ended::Failed(error) => !error.failure.may_have_issued,
            Ended::Abandoned { may_have_issued } => !may_have_issued,
        };
        if certainly_not {
            self.first_orders.on_not_issued(name);
        }
        let Some(plan) = self.plans.get_mut(name) else {
            return;
        };
        match ended {
            Ended::Issued(certificate) => {
                let lifetime = certificate.lifetime();
                plan.schedule
                    .on_outcome(Outcome::Issued(lifetime), now, random);
                if environment == Environment::Staging {
                    self.count(|stats| stats.staging_passed += 1);
                    tracing::info!(%name, "the order passes at the staging CA and goes to production now");
                    return;
                }
                plan.certificate = Some(certificate.clone());
                plan.last_error = None;
                tracing::info!(%name, "a new certificate is served");
                self.count(|stats| stats.issued += 1);
                // In this order: a caller that receives the certificate finds it in the status.
                self.show(name);
                self.publish(name);
            }
            Ended::Failed(error) => {
                let failure = error.failure;
                plan.schedule
                    .on_outcome(Outcome::Failed(failure), now, random);
                plan.last_error = Some(error.text.clone());
                let held = plan.quota(name, now);
                let expired = plan
                    .schedule
                    .lifetime()
                    .is_some_and(|own| own.expires <= now);
                tracing::warn!(%name, ?environment, expired, "no certificate was obtained: {}", error.text);
                if let Some(held) = held {
                    tracing::warn!("{held}");
                }
                if let Cause::RateLimited { until } = failure.cause {
                    self.pace(environment).on_rate_limited(until, now);
                }
                self.count(|stats| count_failure(stats, failure));
            }
            Ended::Abandoned { may_have_issued } => {
                let may_have_issued = *may_have_issued;
                let outcome = Outcome::Abandoned { may_have_issued };
                plan.schedule.on_outcome(outcome, now, random);
            }
        }
    }

    /// A task panicked: its name is tried again as after a failure of this machine, and the order counts.
    fn on_panic(&mut self, name: &CertName) {
        tracing::error!(%name, "the task of an order has panicked");
        if let Some(plan) = self.plans.get_mut(name) {
            plan.asking = false;
            let failure = Failure {
                cause: Cause::Local,
                may_have_issued: true,
            };
            plan.schedule
                .on_outcome(Outcome::Failed(failure), SystemTime::now(), rand::random());
            plan.schedule
                .on_window(None, None, SystemTime::now(), rand::random());
        }
    }

    async fn store_record(&mut self, name: &CertName) {
        let Some(plan) = self.plans.get(name) else {
            return;
        };
        if let Err(error) = self.context.store_record(name, plan.stored()).await {
            self.unstored(name, &error.to_string());
        }
    }

    fn unstored(&mut self, name: &CertName, error: &str) {
        let text = format!("{error}; the certificate is served, but will be lost at a restart");
        tracing::error!(%name, "{text}");
        if let Some(plan) = self.plans.get_mut(name) {
            plan.last_error = Some(text);
        }
        self.count(|stats| stats.store_errors += 1);
    }

    fn publish(&self, name: &CertName) {
        let Some(plan) = self.plans.get(name).filter(|plan| plan.wanted) else {
            return;
        };
        if let Some(certificate) = plan.certificate.clone() {
            let name = name.clone();
            (self.publish)(Update::Available { name, certificate });
        }
    }

    fn show(&self, name: &CertName) {
        let plan = self.plans.get(name).filter(|plan| plan.wanted);
        if let Some(plan) = plan {
            let status = plan.status(name, SystemTime::now());
            self.shared.status.lock().insert(name.clone(), status);
        }
    }

    fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.shared.stats.lock());
    }
}

/// When the next order may begin at each CA; `None` is at once.
struct Paces {
    production: Option<SystemTime>,
    staging: Option<SystemTime>,
}

impl Paces {
    /// Where an order goes, and when. One for a staging CA that accepts none for a time goes to production.
    fn of(&self, environment: Environment) -> (Environment, Option<SystemTime>) {
        match environment {
            Environment::Staging if self.staging.is_none() => (Environment::Staging, None),
            Environment::Staging => (Environment::Production, self.production.min(self.staging)),
            Environment::Production => (Environment::Production, self.production),
        }
    }
}

fn count_failure(stats: &mut Stats, failure: Failure) {
    let counter = match failure.cause {
        Cause::Validation => &mut stats.failed_validation,
        Cause::Refused => &mut stats.failed_refused,
        Cause::Unreachable => &mut stats.failed_unreachable,
        Cause::RateLimited { .. } => &mut stats.failed_rate_limited,
        Cause::Local => &mut stats.failed_local,
    };
    *counter += 1;
}
