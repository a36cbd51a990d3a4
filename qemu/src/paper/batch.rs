// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Shares of the work: what a task costs the host, and which tasks one guest does.

use super::cost::Company;
use super::run::{Config, Task};

/// What a guest's share costs at most, in the host's seconds: little enough to end together with the other guests, enough
/// for a boot not to matter.
const SHARE: f64 = 300.0;

/// The host's seconds for a task, from what such tasks cost when the lab was made. Only their ratios count: the time left
/// is told from how fast the work goes.
pub fn cost(task: &Task) -> f64 {
    let run = match task {
        Task::Transfer(run) => run,
        Task::Burst { .. } => return 10.0,
        Task::Moves(moves) => {
            return 10.0 + 2.0 * f64::from(moves.starts) + 1.0 * f64::from(moves.handoffs)
        }
        Task::Streams(streams) => return 10.0 + 3.0 * f64::from(streams.handoffs),
        Task::Company(company) => return company_cost(company),
        Task::Messages { times } => return 40.0 + 5.0 * f64::from(*times),
    };
    let segments = run.bytes as f64 / 1400.0;
    let a_segment = match run.config {
        Config::Plain => 1.0e-3,
        Config::PlainSnoop => 1.1e-3,
        Config::Ipsec => 1.4e-3,
        Config::Mml | Config::MmlSnoop => 1.5e-3,
    };
    let loss = 1.0 - (-run.bit_error_rate * 8.0 * 1514.0).exp();
    let round_trip = (run.delay_ms + 10.0) / 1000.0;
    let link = segments * 1514.0 * 8.0 / (run.rate_kbps as f64 * 1000.0);
    // A sender alone sends about a window of 1.2 / sqrt(loss) a round trip, and waits for its timer besides.
    let alone = segments * round_trip * loss.sqrt() / 1.2 + segments * loss * loss * 3.0;
    let seconds = if run.config.has_snoop() {
        link / (1.0 - loss)
    } else {
        link.max(alone)
    };
    let seconds = seconds.min(run.limit_seconds);
    1.0 + segments * a_segment + 0.05 * seconds
}

fn company_cost(company: &Company) -> f64 {
    30.0 + 0.1 * f64::from(company.hosts) + 2.0 * f64::from(company.neighbours)
}

/// Splits tasks into shares, dearest first, each in an order that lays its paths once.
pub fn shares<T: AsRef<Task>>(tasks: Vec<T>) -> Vec<Vec<T>> {
    let mut tasks = tasks;
    tasks.sort_by(|a, b| cost(b.as_ref()).total_cmp(&cost(a.as_ref())));
    // Cheap tasks are shared out among the dear ones' guests, so that no guest is left with boots alone.
    let total: f64 = tasks.iter().map(|task| cost(task.as_ref())).sum();
    let count = (total / SHARE).ceil().max(1.0) as usize;
    let mut shares: Vec<(f64, Vec<T>)> = (0..count).map(|_| (0.0, Vec::new())).collect();
    for task in tasks {
        let cost = cost(task.as_ref());
        if let Some(lightest) = shares.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0)) {
            lightest.0 += cost;
            lightest.1.push(task);
        }
    }
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut shares: Vec<Vec<T>> = shares
        .into_iter()
        .map(|(_, share)| share)
        .filter(|share| !share.is_empty())
        .collect();
    for share in &mut shares {
        share.sort_by_key(|task| task.as_ref().way());
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::plan::Figure;

    struct Item(Task);

    impl AsRef<Task> for Item {
        fn as_ref(&self) -> &Task {
            &self.0
        }
    }

    #[test]
    fn every_task_is_in_one_share_and_ways_stand_together() {
        let tasks: Vec<Item> = Figure::Fig11.tasks(false).into_iter().map(Item).collect();
        let count = tasks.len();
        let shares = shares(tasks);
        assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), count);
        for share in &shares {
            let mut ways: Vec<_> = share.iter().map(|item| item.0.way()).collect();
            let changes = ways.windows(2).filter(|pair| pair[0] != pair[1]).count();
            ways.sort();
            ways.dedup();
            assert_eq!(changes + 1, ways.len());
        }
    }

    #[test]
    fn shares_cost_about_the_same() {
        let tasks: Vec<Item> = Figure::ALL
            .iter()
            .flat_map(|figure| figure.tasks(false))
            .map(Item)
            .collect();
        let costs: Vec<f64> = shares(tasks)
            .iter()
            .map(|share| share.iter().map(|item| cost(&item.0)).sum())
            .collect();
        let (most, least) = (costs[0], costs[costs.len() - 1]);
        assert!(most <= 1.3 * SHARE && most - least < 60.0, "{most} {least}");
    }
}
