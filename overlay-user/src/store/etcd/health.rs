//! One health out of several tasks: the watch and each announcement have a say, and `Ok` is reported only
//! when all agree.

use std::collections::BTreeMap;

use tokio::sync::{Mutex, mpsc};

use crate::store::{Health, StoreError, Subnets, Update};

/// What the tasks last said.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None` until the watch has either a snapshot or a reason why not.
    watch: Option<Health>,
    /// What the guard against mass deletion holds back.
    guard: Option<String>,
    /// The network's configuration is not what the daemon knows.
    network: Option<String>,
    /// The announcements that are in trouble.
    announcements: BTreeMap<Subnets, Trouble>,
    reported: Option<Health>,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    out_of_reach: bool,
}

impl Board {
    pub(super) async fn watch(&self, health: Health, updates: &mpsc::Sender<Update>) {
        let mut state = self.0.lock().await;
        let first_trouble = !matches!(state.watch, Some(Health::Degraded { .. }));
        match &health {
            Health::Degraded { reason } if first_trouble => tracing::warn!("{reason}"),
            Health::Ok if state.watch.is_some() => tracing::info!("etcd is in step again"),
            _ => {}
        }
        state.watch = Some(health);
        state.report(updates).await;
    }

    /// The guard against mass deletion holds something back; or, with `None`, nothing.
    pub(super) async fn guard(&self, trouble: Option<String>, updates: &mpsc::Sender<Update>) {
        let mut state = self.0.lock().await;
        match (&state.guard, &trouble) {
            (None, Some(trouble)) => tracing::warn!("{trouble}"),
            (Some(_), None) => tracing::info!("what etcd has is believed again"),
            _ => {}
        }
        state.guard = trouble;
        state.report(updates).await;
    }

    /// The network's configuration is not what the daemon knows; or, with `None`, is.
    pub(super) async fn network(&self, trouble: Option<String>, updates: &mpsc::Sender<Update>) {
        let mut state = self.0.lock().await;
        if state.network != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!("{trouble}");
            }
            state.network = trouble;
            state.report(updates).await;
        }
    }

    pub(super) async fn announced(&self, subnets: Subnets, updates: &mpsc::Sender<Update>) {
        let mut state = self.0.lock().await;
        state.announcements.remove(&subnets);
        state.report(updates).await;
    }

    pub(super) async fn not_announced(
        &self,
        subnets: Subnets,
        error: &StoreError,
        updates: &mpsc::Sender<Update>,
    ) {
        let mut state = self.0.lock().await;
        let reason = format!("{subnets} is not announced: {error}");
        let out_of_reach = matches!(error, StoreError::Unreachable(_));
        if state.announcements.get(&subnets).is_none_or(|known| known.reason != reason) && !out_of_reach {
            tracing::warn!("{reason}");
        }
        state.announcements.insert(subnets, Trouble { reason, out_of_reach });
        state.report(updates).await;
    }
}

impl State {
    /// The receiver's end is the watch's business: a report that finds nobody is no trouble. The lock is kept
    /// meanwhile so that reports arrive in the order in which they were made.
    async fn report(&mut self, updates: &mpsc::Sender<Update>) {
        let Some(health) = self.joint() else { return };
        if self.reported.as_ref() != Some(&health) {
            self.reported = Some(health.clone());
            let _ = updates.send(Update::Health(health)).await;
        }
    }

    fn joint(&self) -> Option<Health> {
        let mut reasons = Vec::new();
        if let Some(Health::Degraded { reason }) = &self.watch {
            reasons.push(reason.as_str());
        }
        let watch_is_down = !reasons.is_empty();
        reasons.extend(self.guard.as_deref());
        reasons.extend(self.network.as_deref());
        // With etcd out of reach, the watch's own reason says it all.
        let announcements =
            self.announcements.values().filter(|trouble| !(watch_is_down && trouble.out_of_reach));
        reasons.extend(announcements.map(|trouble| trouble.reason.as_str()));
        if reasons.is_empty() {
            self.watch.clone()
        } else {
            Some(Health::Degraded { reason: reasons.join("; ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets() -> Subnets {
        Subnets { v4: "10.9.0.0/24".parse().unwrap(), v6: None }
    }

    fn degraded(reason: &str) -> Health {
        Health::Degraded { reason: reason.into() }
    }

    #[tokio::test]
    async fn ok_only_when_all_agree() {
        let (updates, mut reports) = mpsc::channel(8);
        let board = Board::default();
        let subnets = subnets();
        board.announced(subnets, &updates).await;
        board.watch(Health::Ok, &updates).await;
        board.not_announced(subnets, &StoreError::Conflict("held".into()), &updates).await;
        board.watch(degraded("gone"), &updates).await;
        board.watch(Health::Ok, &updates).await;
        board.watch(Health::Ok, &updates).await;
        board.announced(subnets, &updates).await;
        drop(updates);
        let mut said = Vec::new();
        while let Some(Update::Health(health)) = reports.recv().await {
            said.push(health);
        }
        let held = "10.9.0.0/24 is not announced: held";
        let both = format!("gone; {held}");
        assert_eq!(said, [Health::Ok, degraded(held), degraded(&both), degraded(held), Health::Ok]);
    }

    #[tokio::test]
    async fn an_outage_is_told_once() {
        let (updates, mut reports) = mpsc::channel(8);
        let board = Board::default();
        board.watch(degraded("gone"), &updates).await;
        let error = StoreError::Unreachable("also gone".into());
        board.not_announced(subnets(), &error, &updates).await;
        assert_eq!(reports.recv().await, Some(Update::Health(degraded("gone"))));
        assert!(reports.try_recv().is_err());
    }
}
