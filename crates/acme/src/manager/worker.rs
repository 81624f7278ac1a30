//! The loop of a manager.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::sleep,
};

use super::{
    context::Context,
    plan::{Loaded, Plan},
    shared::{Publish, Shared, Update},
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
    tasks: JoinSet<Done>,
    running: HashMap<Id, CertName>,
    production: Pace,
    staging: Pace,
}

impl Worker {
    pub(super) fn new(context: Arc<Context>, shared: Arc<Shared>, publish: Publish) -> Self {
        let pace = Pace::new(context.policy.account_orders);
        Self {
            context,
            shared,
            publish,
            plans: BTreeMap::new(),
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
            let sleep_for = self.start_due(SystemTime::now());
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
    async fn adopt(&mut self, mut names: BTreeSet<CertName>) {
        let unwanted: Vec<_> = { self.plans.keys() }
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for name in unwanted {
            self.withdraw(&name);
        }
        names.retain(|name| match self.plans.get_mut(name) {
            Some(plan) if plan.wanted => false,
            Some(plan) => {
                // Its order still runs.
                plan.wanted = true;
                false
            }
            None => true,
        });
        let room = self
            .context
            .settings
            .max_names
            .saturating_sub(self.plans.len());
        let ignored = names.len().saturating_sub(room);
        self.shared.stats.lock().names_ignored = ignored as u64;
        if ignored > 0 {
            let most = self.context.settings.max_names;
            tracing::warn!(
                ignored,
                "more than {most} names want a certificate: some get none"
            );
        }
        let new: Vec<_> = names.into_iter().take(room).collect();
        let read = self.context.with_store({
            let new = new.clone();
            move |store, ca| -> Vec<_> {
                new.iter()
                    .map(|name| Loaded::read(store, ca, name))
                    .collect()
            }
        });
        let read = read.await.unwrap_or_default();
        for (name, loaded) in new.into_iter().zip(read) {
            for error in &loaded.errors {
                tracing::warn!(%name, "{error}");
                self.count(|stats| stats.store_errors += 1);
            }
            let plan = Plan::new(&self.context, &name, loaded, rand::random());
            self.plans.insert(name, plan);
        }
        // Also of those whose order ran while they were not wanted.
        let names: Vec<_> = self.plans.keys().cloned().collect();
        for name in names {
            let known = self.shared.status.lock().contains_key(&name);
            if !known {
                self.show(&name);
                self.publish(&name);
            }
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
        if self.shared.status.lock().remove(name).is_some() {
            let name = name.clone();
            (self.publish)(Update::Withdrawn { name });
        }
    }

    /// Starts what is due, and returns the time until something will be.
    fn start_due(&mut self, now: SystemTime) -> Duration {
        let mut next = now + LONGEST_SLEEP;
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

    /// What is due now, an order of the name with the fewest failures before any question; and when the next thing will be
    /// due.
    fn due(&mut self, now: SystemTime) -> (Option<(CertName, bool)>, SystemTime) {
        let (mut later, mut best, mut question) = (now + LONGEST_SLEEP, None, None);
        let ready =
            [Environment::Production, Environment::Staging].map(|at| self.pace(at).ready_at(now));
        let [production, staging] = ready;
        for (name, plan) in &self.plans {
            if let Some(at) = plan.question_at(now) {
                if at <= now {
                    question = Some(name);
                } else {
                    later = later.min(at);
                }
            }
            let Some(at) = plan.order_at(now) else {
                continue;
            };
            let paced = match plan.schedule.record().environment {
                Environment::Production => production,
                Environment::Staging => staging,
            };
            let at = paced.map_or(at, |paced| paced.max(at));
            if at > now {
                later = later.min(at);
                continue;
            }
            let mut others = self.running.values();
            if others.any(|other| self.context.share_record(name, other)) {
                continue;
            }
            let failures = plan.schedule.record().failures;
            if best.as_ref().is_none_or(|(fewest, _)| failures < *fewest) {
                best = Some((failures, name));
            }
        }
        let order = best.map(|(_, name)| (name.clone(), true));
        let due = order.or_else(|| question.map(|name| (name.clone(), false)));
        (due, later)
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
        let environment = plan.schedule.on_started(now);
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
        }
        self.show(&name);
    }

    fn on_ended(&mut self, name: &CertName, ended: &Ended, environment: Environment, seen: Seen) {
        let (now, random) = (SystemTime::now(), rand::random());
        if seen.accepted {
            self.pace(environment).on_accepted();
        }
        self.count(|stats| stats.replaces_refused += u64::from(seen.replaces_refused));
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
                let held = plan.held(name, now);
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
