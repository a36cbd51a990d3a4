// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a host costs its agents in company: ordered, told, as a file, as curves and as claims.

use std::sync::Arc;

use plotters::style::RGBColor;
use serde::{Deserialize, Serialize};

use super::chart::{self, Area, Axes, Curve, Line};
use super::claims::{claim, Claim, Finding};
use super::moves::{total, Instants, Quartiles};
use super::run::Task;
use super::state::State;

/// How a foreign agent's neighbours are given keys beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// One by one.
    Sequence,
    /// By one datagram for all.
    Multicast,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Sequence => "sequence",
            By::Multicast => "multicast",
        }
    }
}

/// A host among others: at the foreign agents, or of the foreign agent's neighbours. Its fields are the guest's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Company {
    /// Hosts at both foreign agents, itself among them.
    pub hosts: u32,
    /// Neighbours of the foreign agent where it is, which are given its keys beforehand.
    pub neighbours: u32,
    /// How.
    pub by: By,
    /// Rekeyings, and where there are no such neighbours handoffs.
    pub times: u32,
}

/// How many hosts there are.
const HOSTS: [u32; 4] = [1, 10, 100, 1000];
/// How many neighbours.
const NEIGHBOURS: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// How many of each are measured.
const TIMES: u32 = 10;

/// What is measured; none in a quick look.
pub fn tasks(quick: bool) -> Vec<Task> {
    if quick {
        return Vec::new();
    }
    let of = |hosts, neighbours, by| {
        Task::Company(Company {
            hosts,
            neighbours,
            by,
            times: TIMES,
        })
    };
    let neighbours = [By::Sequence, By::Multicast]
        .into_iter()
        .flat_map(|by| NEIGHBOURS.map(|count| of(1, count, by)));
    HOSTS
        .map(|count| of(count, 0, By::Sequence))
        .into_iter()
        .chain(neighbours)
        .collect()
}

/// A rekeying of the host's CSA: microseconds that key managers' threads ran.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Rekeying {
    home_us: f64,
    foreign_us: f64,
}

/// What a guest tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Told {
    rekeying: Vec<Rekeying>,
    handoffs: Vec<Instants>,
}

impl Told {
    fn rekeying_us(&self, of: impl Fn(&Rekeying) -> f64) -> Option<Quartiles> {
        Quartiles::of(&self.rekeying.iter().map(of).collect::<Vec<_>>())
    }

    /// Until all is set up, in milliseconds.
    fn handoff_ms(&self) -> Option<Quartiles> {
        let took = self.handoffs.iter().filter_map(total);
        Quartiles::of(&took.map(|us| us / 1000.0).collect::<Vec<_>>())
    }
}

/// All that was measured.
#[derive(Default)]
pub struct Costs(Vec<(Company, Arc<Told>)>);

impl Costs {
    /// What of the tasks has been measured.
    pub fn of<'a>(tasks: impl Iterator<Item = &'a (Task, String)>, state: &State) -> Self {
        let told = |(task, key): &(Task, String)| {
            let Task::Company(company) = task else {
                return None;
            };
            let told = serde_json::from_value(state.told(key)?.clone()).ok()?;
            Some((company.clone(), Arc::new(told)))
        };
        Costs(tasks.filter_map(told).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn with(&self, hosts: u32, neighbours: u32, by: By) -> Option<&Told> {
        let is = |one: &Company| (one.hosts, one.neighbours, one.by) == (hosts, neighbours, by);
        let found = self.0.iter().find(|(company, _)| is(company));
        found.map(|(_, told)| &**told)
    }

    /// The median of what home agent and foreign agent run for a rekeying, in microseconds.
    fn rekeying_us(&self, hosts: u32, neighbours: u32, by: By) -> Option<[f64; 2]> {
        let told = self.with(hosts, neighbours, by)?;
        let home = told.rekeying_us(|one| one.home_us)?.median();
        Some([home, told.rekeying_us(|one| one.foreign_us)?.median()])
    }

    fn handoff_ms(&self, hosts: u32) -> Option<f64> {
        let told = self.with(hosts, 0, By::Sequence)?;
        Some(told.handoff_ms()?.median())
    }

    /// What each neighbour beyond the first adds at the home agent, in microseconds.
    fn a_neighbour_us(&self, by: By) -> Option<f64> {
        let [first, last] = [*NEIGHBOURS.first()?, *NEIGHBOURS.last()?];
        let home = |count| Some(self.rekeying_us(1, count, by)?[0]);
        Some((home(last)? - home(first)?) / f64::from(last - first))
    }
}

/// One row a company: quartiles of what is measured in it.
pub fn table(costs: &Costs) -> String {
    let mut text = "hosts,neighbours,by,rekeyings,rekeying_ha_first_quartile_us,rekeying_ha_median_us,rekeying_ha_third_quartile_us,rekeying_fa_first_quartile_us,rekeying_fa_median_us,rekeying_fa_third_quartile_us,handoffs,handoff_first_quartile_ms,handoff_median_ms,handoff_third_quartile_ms\n".to_owned();
    let shown = |quartiles: Option<Quartiles>, digits: usize| match quartiles {
        Some(Quartiles(all)) => all.map(|value| format!("{value:.digits$}")).join(","),
        None => ",,".to_owned(),
    };
    for (company, told) in &costs.0 {
        text.push_str(&format!(
            "{},{},{},{},{},{},{},{}\n",
            company.hosts,
            company.neighbours,
            company.by.name(),
            told.rekeying.len(),
            shown(told.rekeying_us(|one| one.home_us), 1),
            shown(told.rekeying_us(|one| one.foreign_us), 1),
            told.handoffs.len(),
            shown(told.handoff_ms(), 3),
        ));
    }
    text
}

/// How much more a rekeying may cost with the most hosts than with one, and by how many milliseconds a handoff may take longer.
const MORE_REKEYING: f64 = 1.5;
const LONGER_MS: f64 = 1.0;
/// What a neighbour may add, in microseconds, and how much of that by one datagram.
const A_NEIGHBOUR_US: f64 = 300.0;
const BY_DATAGRAM: f64 = 0.5;

/// What is aimed at; the paper measured neither.
pub fn claims(costs: &Costs) -> Vec<Claim> {
    vec![
        claim(
            "cost-hosts-rekeying",
            "a host's rekeying, of home agent and foreign agent together, with 1,000 hosts at the foreign agents against one",
            "not given",
            "at most 1.5 times",
            with_hosts(costs),
        ),
        claim(
            "cost-hosts-handoff",
            "a host's handoff with PKD, medians with 1 / 10 / 100 / 1,000 hosts at both foreign agents, no delays",
            "not given",
            "with 1,000 at most 1 ms longer than with one",
            handoffs(costs),
        ),
        claim(
            "cost-neighbours",
            "what each neighbour beyond the first, of 32, adds to a host's rekeying at the home agent: keys given one by one (PKD, sequential)",
            "not given",
            "at most 0.3 ms",
            a_neighbour(costs),
        ),
        claim(
            "cost-neighbours-multicast",
            "the same where one datagram brings the keys to all (PKD, multicast), their reports included",
            "not given",
            "at most half of one by one",
            by_datagram(costs),
        ),
    ]
}

fn with_hosts(costs: &Costs) -> Finding {
    let (least, most) = (*HOSTS.first()?, *HOSTS.last()?);
    let both = |count| {
        let [home, foreign] = costs.rekeying_us(count, 0, By::Sequence)?;
        Some(home + foreign)
    };
    let (one, many) = (both(least)?, both(most)?);
    let grown = many / one;
    let text = format!("{grown:.2} times ({many:.0} us, {one:.0} us)");
    Some((text, grown <= MORE_REKEYING))
}

fn handoffs(costs: &Costs) -> Finding {
    let all = HOSTS
        .into_iter()
        .map(|count| costs.handoff_ms(count))
        .collect::<Option<Vec<f64>>>()?;
    let longer = all.last()? - all.first()?;
    let shown: Vec<String> = all.iter().map(|ms| format!("{ms:.2}")).collect();
    let text = format!("{} ms: {longer:+.2} ms", shown.join(" / "));
    Some((text, longer <= LONGER_MS))
}

fn a_neighbour(costs: &Costs) -> Finding {
    let each = costs.a_neighbour_us(By::Sequence)?;
    Some((format!("{:.3} ms", each / 1000.0), each <= A_NEIGHBOUR_US))
}

fn by_datagram(costs: &Costs) -> Finding {
    let [one_by_one, cast] = [By::Sequence, By::Multicast].map(|by| costs.a_neighbour_us(by));
    let (one_by_one, cast) = (one_by_one?, cast?);
    let share = cast / one_by_one;
    let text = format!("{:.3} ms: {share:.2} times", cast / 1000.0);
    Some((text, share <= BY_DATAGRAM))
}

const HOME: RGBColor = RGBColor(214, 110, 56);
const FOREIGN: RGBColor = RGBColor(66, 133, 180);
const MOVING: RGBColor = RGBColor(60, 150, 80);
const GREY: RGBColor = RGBColor(120, 120, 120);

/// Against hosts, and against neighbours.
pub fn draw<'a>(area: &Area<'a>, costs: &Costs, width: u32) -> chart::Result<'a> {
    let (left, right) = area.split_horizontally(width / 2);
    against_hosts(&left, costs)?;
    against_neighbours(&right, costs)
}

fn dotted(name: &str, colour: RGBColor, points: Vec<(f64, f64)>) -> Curve {
    Curve {
        name: name.to_owned(),
        colour,
        line: Line::Dotted,
        points,
    }
}

fn top(curves: &[Curve]) -> f64 {
    let points = curves.iter().flat_map(|curve| &curve.points);
    points.map(|point| point.1).fold(0.1, f64::max)
}

fn against_hosts<'a>(area: &Area<'a>, costs: &Costs) -> chart::Result<'a> {
    let over = |value: &dyn Fn(u32) -> Option<f64>| {
        let points = HOSTS.into_iter().enumerate();
        points
            .filter_map(|(at, count)| Some((at as f64, value(count)?)))
            .collect()
    };
    let rekeying = |count, at: usize| Some(costs.rekeying_us(count, 0, By::Sequence)?[at] / 1000.0);
    let curves = [
        dotted(
            "handoff with PKD, no delays",
            MOVING,
            over(&|count| costs.handoff_ms(count)),
        ),
        dotted(
            "rekeying, at the home agent",
            HOME,
            over(&|count| rekeying(count, 0)),
        ),
        dotted(
            "rekeying, at the foreign agent",
            FOREIGN,
            over(&|count| rekeying(count, 1)),
        ),
    ];
    let axes = Axes {
        title: "A host's cost with others at the foreign agents",
        x: "hosts",
        y: "milliseconds",
        right: HOSTS.len() as f64 - 0.7,
        height: (0.0, top(&curves) * 1.6),
        logarithmic: false,
        names: HOSTS.map(|count| count.to_string()).to_vec(),
    };
    chart::draw(area, &axes, &curves, &[])
}

fn against_neighbours<'a>(area: &Area<'a>, costs: &Costs) -> chart::Result<'a> {
    let over = |by| {
        let home = |count| Some(costs.rekeying_us(1, count, by)?[0] / 1000.0);
        NEIGHBOURS
            .into_iter()
            .filter_map(|count| Some((f64::from(count), home(count)?)))
            .collect::<Vec<_>>()
    };
    let mut curves = vec![
        dotted("keys given one by one", HOME, over(By::Sequence)),
        dotted("by one datagram", MOVING, over(By::Multicast)),
    ];
    let most = f64::from(NEIGHBOURS[NEIGHBOURS.len() - 1]);
    let top = top(&curves);
    if let Some((first, least)) = curves[0].points.first().copied() {
        let limit = |at: f64| least + (at - first) * A_NEIGHBOUR_US / 1000.0;
        curves.push(Curve {
            name: "goal: 0.3 ms each".to_owned(),
            colour: GREY,
            line: Line::Dashed,
            points: vec![(first, limit(first)), (most, limit(most))],
        });
    }
    let axes = Axes {
        title: "A rekeying at the home agent with neighbours of the foreign agent",
        x: "neighbours",
        y: "milliseconds",
        right: most * 1.05,
        height: (0.0, top.max(1.0) * 1.6),
        logarithmic: false,
        names: Vec::new(),
    };
    chart::draw(area, &axes, &curves, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All companies, with what a function of hosts, neighbours and way says of the home agent, and a handoff of so many
    /// microseconds.
    fn costs(home_us: impl Fn(&Company) -> f64, handoff_us: impl Fn(u32) -> i64) -> Costs {
        let all = tasks(false).into_iter().map(|task| {
            let Task::Company(company) = task else {
                panic!("{task:?}");
            };
            let one = Instants::from([("registered".to_owned(), handoff_us(company.hosts))]);
            let told = Told {
                rekeying: vec![Rekeying {
                    home_us: home_us(&company),
                    foreign_us: 200.0,
                }],
                handoffs: match company.neighbours {
                    0 => vec![one],
                    _ => Vec::new(),
                },
            };
            (company, Arc::new(told))
        });
        Costs(all.collect())
    }

    fn holds(costs: &Costs, id: &str) -> Option<bool> {
        let found = claims(costs).into_iter().find(|claim| claim.id == id);
        found.unwrap_or_else(|| panic!("no claim {id}")).holds
    }

    #[test]
    fn what_grows_with_company_beyond_its_goal_is_told() {
        let grows = |more: f64, longer_us: i64| {
            costs(
                move |company| match company.hosts {
                    1000 => 800.0 + more,
                    _ => 800.0,
                },
                move |hosts| {
                    if hosts == 1000 {
                        5_000 + longer_us
                    } else {
                        5_000
                    }
                },
            )
        };
        let (few, many) = (grows(499.0, 999), grows(501.0, 1_001));
        for id in ["cost-hosts-rekeying", "cost-hosts-handoff"] {
            assert_eq!(holds(&few, id), Some(true), "{id}");
            assert_eq!(holds(&many, id), Some(false), "{id}");
            assert_eq!(holds(&Costs::default(), id), None, "{id}");
        }
    }

    #[test]
    fn a_neighbour_costs_what_it_adds_to_the_first() {
        let each = |one_by_one: f64, cast: f64| {
            costs(
                move |company| {
                    let each = match company.by {
                        By::Sequence => one_by_one,
                        By::Multicast => cast,
                    };
                    1000.0 + f64::from(company.neighbours) * each
                },
                |_| 5_000,
            )
        };
        let both = ["cost-neighbours", "cost-neighbours-multicast"];
        let found = |costs: &Costs| both.map(|id| holds(costs, id));
        assert_eq!(found(&each(299.0, 149.0)), [Some(true), Some(true)]);
        assert_eq!(found(&each(301.0, 151.0)), [Some(false), Some(false)]);
    }

    #[test]
    fn a_row_has_what_was_measured_and_no_handoffs_with_neighbours() {
        let text = table(&costs(|_| 900.0, |_| 5_000));
        assert_eq!(text.lines().count(), 1 + 4 + 12);
        assert!(text.contains(
            "\n1000,0,sequence,1,900.0,900.0,900.0,200.0,200.0,200.0,1,5.000,5.000,5.000\n"
        ));
        assert!(text.ends_with("1,32,multicast,1,900.0,900.0,900.0,200.0,200.0,200.0,0,,,\n"));
    }
}
