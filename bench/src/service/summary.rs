//! From samples to figures with their goals.

use dataplane_loader::measure::{self, Case};

use super::model::SIZES;
use super::ours::FROM_OUTSIDE;
use super::proxies::Proxy;
use crate::figure::{Figure, median};
use crate::net::summary::{LIMIT, Row, contenders, ratio, values};
use crate::traffic::{Metric, Sample};

/// Connections in a second beside kube-proxy's nftables mode, at least.
const RATE_GOAL: f64 = 1.0;
/// The same for who calls from outside.
const OUTSIDE_GOAL: f64 = 1.2;
/// How much of the rate with one service must be left with the most.
const FLAT_GOAL: f64 = 0.95;
/// Latency of the first packet, 99 in 100, beside nftables, at most.
const FIRST_GOAL: f64 = 1.0;
/// Latency of a round trip on a connection, and of a whole connection, beside a direct veth pair, at most.
const RR_GOAL: f64 = 1.12;
const CRR_GOAL: f64 = 1.20;
/// Cost of a packet of a connection with a service beside one without, at most.
const PACKET_GOAL: f64 = 1.25;

type Measure = fn(&Sample) -> f64;

const RATE: Measure = |sample| sample.rate;
const P50: Measure = |sample| sample.p50_us;
const P99: Measure = |sample| sample.p99_us;
const FIRST: Measure = |sample| sample.first_p99_us;
const CPU: Measure = |sample| sample.cpu_ns_per_unit;

/// All figures of rates: those with goals first, then what they are made of.
pub fn figures(rows: &[Row]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let crr = Metric::Crr;
    let judge = |name: String, value: f64, make: &dyn Fn(String, f64) -> Figure| {
        // Where one side was left out there is nothing to judge.
        (!value.is_nan()).then(|| make(name, value))
    };
    for size in SIZES {
        let (ours, theirs) = (size.ours, size.nftables);
        figures.extend(judge(
            format!("service.{ours}.crr.rate_to_nftables"),
            ratio(rows, crr, ours, theirs, RATE),
            &|name, value| Figure::at_least(name, value, "x", RATE_GOAL),
        ));
        figures.extend(judge(
            format!("service.{ours}.first-packet.p99_to_nftables"),
            ratio(rows, crr, ours, theirs, FIRST),
            &|name, value| Figure::at_most(name, value, "x", FIRST_GOAL),
        ));
    }
    let [smallest, .., largest] = SIZES.map(|size| size.ours);
    figures.extend(judge(
        format!("service.{largest}.crr.rate_to_1"),
        ratio(rows, crr, largest, smallest, RATE),
        &|name, value| Figure::at_least(name, value, "x", FLAT_GOAL),
    ));
    for (metric, goal) in [(Metric::Rr, RR_GOAL), (crr, CRR_GOAL)] {
        figures.extend(judge(
            format!("service.{largest}.{}.p50_to_limit", metric.word()),
            ratio(rows, metric, largest, LIMIT, P50),
            &|name, value| Figure::at_most(name, value, "x", goal),
        ));
    }
    figures.extend(judge(
        format!("service.{FROM_OUTSIDE}.crr.rate_to_nftables"),
        ratio(rows, crr, FROM_OUTSIDE, Proxy::Nftables.from_outside(), RATE),
        &|name, value| Figure::at_least(name, value, "x", OUTSIDE_GOAL),
    ));
    for metric in [Metric::Rr, crr] {
        for name in contenders(rows, metric) {
            let measures: &[(&str, Measure, &'static str)] = &[
                ("rate", RATE, metric.unit()),
                ("p50", P50, "µs"),
                ("p99", P99, "µs"),
                ("first-packet.p99", FIRST, "µs"),
                ("cpu", CPU, "ns"),
            ];
            for (word, of, unit) in measures {
                if metric == crr || *word != "first-packet.p99" {
                    let value = median(&values(rows, metric, name, *of));
                    figures.push(Figure::plain(
                        format!("service.{name}.{}.{word}", metric.word()),
                        value,
                        unit,
                    ));
                }
            }
        }
    }
    figures
}

/// Packets of established connections that are translated packet by packet, beside those that need no translation.
pub fn packet_figures(measured: &[measure::Figure]) -> Vec<Figure> {
    let ns = |case: Case, v6: bool| {
        measured.iter().find(|figure| figure.case == case && figure.v6 == v6).map(|figure| figure.ns)
    };
    let mut figures = Vec::new();
    for (proto, call, direct) in
        [("tcp", Case::CallTcp, Case::DirectTcp), ("udp", Case::CallUdp, Case::DirectUdp)]
    {
        for (family, v6) in [("v4", false), ("v6", true)] {
            let (Some(with), Some(without)) = (ns(call, v6), ns(direct, v6)) else { continue };
            let name = format!("service.packet.established.{proto}.{family}");
            figures.push(Figure::at_most(format!("{name}_ratio"), with / without, "x", PACKET_GOAL));
            figures.push(Figure::plain(name.clone(), with, "ns"));
            figures.push(Figure::plain(format!("{name}.without-service"), without, "ns"));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use dataplane_abi::program::Program;

    use super::*;
    use crate::net::sample;

    #[test]
    fn ours_are_judged_beside_nftables_and_the_direct_pair() {
        let row =
            |contender, metric, us: f64| Row { contender, metric, repeat: 0, sample: sample(us, 1000.0) };
        let rows = [
            row(LIMIT, Metric::Rr, 10.0),
            row("bristle-10000", Metric::Rr, 11.0),
            row(LIMIT, Metric::Crr, 30.0),
            row("nftables-10000", Metric::Crr, 40.0),
            row("bristle-1", Metric::Crr, 38.0),
            row("bristle-10000", Metric::Crr, 39.0),
            row("nftables-node-port", Metric::Crr, 50.0),
        ];
        let judged: Vec<_> = figures(&rows)
            .into_iter()
            .filter_map(|figure| Some((figure.name.trim_start_matches("service.").to_owned(), figure.met?)))
            .collect();
        let expected = [
            ("bristle-10000.crr.rate_to_nftables", true),
            ("bristle-10000.first-packet.p99_to_nftables", true),
            ("bristle-10000.crr.rate_to_1", true),
            ("bristle-10000.rr.p50_to_limit", true),
            ("bristle-10000.crr.p50_to_limit", false),
        ];
        assert_eq!(
            judged,
            expected.map(|(name, met)| (name.to_owned(), met)),
            "what was left out is not judged"
        );
        let plain = figures(&rows);
        assert!(plain.iter().any(|figure| figure.name == "service.nftables-node-port.crr.rate"));
        assert!(!plain.iter().any(|figure| figure.name == "service.limit.rr.first-packet.p99"));
    }

    #[test]
    fn packets_are_judged_beside_those_without_a_service() {
        let figure =
            |case, ns| measure::Figure { program: Program::FromContainer, case, v6: false, to: "pod", ns };
        let figures = packet_figures(&[
            figure(Case::DirectTcp, 60.0),
            figure(Case::CallTcp, 75.0),
            figure(Case::DirectUdp, 60.0),
            figure(Case::CallUdp, 90.0),
        ]);
        let judged: Vec<_> = figures.iter().filter_map(|figure| Some((figure.value, figure.met?))).collect();
        assert_eq!(judged, [(1.25, true), (1.5, false)]);
        assert_eq!(figures[0].name, "service.packet.established.tcp.v4_ratio");
    }
}
