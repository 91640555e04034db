//! What policy costs: packets between two pods of the node whose policies are both in force.

use dataplane_abi::config::Config;
use dataplane_abi::endpoints::{EndpointEntry, EndpointFlags, EndpointKey, Endpoints};
use dataplane_abi::policy::{Direction, L4Key, Policy, PolicyEntry, PolicyKey, PolicyL4, PolicyVerdict};
use dataplane_abi::program::Program;
use dataplane_abi::{Be16, Identity};

use super::frames::{UDP, udp};
use super::{Case, Figure, GATEWAY_MAC, MeasureError, Node, POD_MAC, REDIRECTED, Who, mac, median, typed};

/// Turns, so that what else the machine does falls on all figures alike.
const ROUNDS: usize = 5;
/// Identities of the policies, and what is measured with them.
const SIZES: [(u32, Case); 2] = [(10, Case::NewPolicySmall), (10_000, Case::NewPolicyLarge)];
/// First port of connections that were never seen.
const FRESH_PORTS: u16 = 15_000;
/// The policies allow connections to one port, by a set.
const PORT: u16 = 80;
/// The first identities are the pods' own.
const FIRST_IDENTITY: u32 = 256;

impl Node {
    /// Measures both cases in turns, with policies of each size.
    pub(super) fn measure_policy(
        &self,
        v6: bool,
        samples: usize,
        figures: &mut Vec<Figure>,
    ) -> Result<(), MeasureError> {
        self.write_policies()?;
        let program = Program::FromContainer;
        let device = self.devices.pods[0];
        let to_other = |port: u16| {
            let (pod, other) = (Who::Pod(0).end(v6, port), Who::Pod(1).end(v6, PORT));
            udp(mac(GATEWAY_MAC, 0), mac(POD_MAC, 0), pod, other)
        };
        let samples = samples.div_ceil(ROUNDS).max(3);
        let (mut open, mut guarded, mut fresh) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        let mut port = FRESH_PORTS;
        for _ in 0..ROUNDS {
            self.put_in_force(None)?;
            self.run(program, device, &to_other(5000))?;
            open.push(self.repeated(program, device, &to_other(5000), samples, REDIRECTED)?);
            for ((size, _), times) in SIZES.iter().zip(&mut fresh) {
                self.put_in_force(Some(*size))?;
                self.run(program, device, &to_other(5000))?;
                let established = self.repeated(program, device, &to_other(5000), samples, REDIRECTED)?;
                let known = self.single(program, samples, REDIRECTED, |_| (device, to_other(5000)))?;
                let next = |sample: usize| port.wrapping_add(u16::try_from(sample).unwrap_or(u16::MAX));
                let new =
                    self.single(program, samples, REDIRECTED, |sample| (device, to_other(next(sample))))?;
                port = next(samples * 10);
                times.push(new - known + established);
                guarded.push(established);
            }
        }
        self.put_in_force(None)?;
        let mut add = |case, ns| figures.push(Figure { program, case, v6, to: "pod", ns });
        add(Case::EstablishedOpen, median(open));
        add(Case::EstablishedPolicy, median(guarded));
        for ((_, case), times) in SIZES.into_iter().zip(fresh) {
            add(case, median(times));
        }
        Ok(())
    }

    /// A policy of each size; its number is its size.
    fn write_policies(&self) -> Result<(), MeasureError> {
        let policies = typed::<Policy>(&self.object)?;
        let sets = typed::<PolicyL4>(&self.object)?;
        for (size, _) in SIZES {
            sets.upsert(&L4Key::exact(size, UDP, Be16::new(PORT)), &PolicyVerdict::allow(1))?;
            sets.upsert(&L4Key::proto(size, UDP), &PolicyVerdict::deny(2))?;
            for identity in (FIRST_IDENTITY..).take(usize::try_from(size).unwrap_or(usize::MAX)) {
                for direction in [Direction::Ingress, Direction::Egress] {
                    let key = PolicyKey::new(size, direction, Identity(identity));
                    policies.upsert(&key, &PolicyEntry::by_l4(size))?;
                }
            }
        }
        Ok(())
    }

    /// Puts a policy in force for both pods, or none, as the agent does: the pods' rows, then the revision.
    fn put_in_force(&self, policy: Option<u32>) -> Result<(), MeasureError> {
        let endpoints = typed::<Endpoints>(&self.object)?;
        let mut flags = EndpointFlags(0);
        flags.set(EndpointFlags::ENFORCE_INGRESS | EndpointFlags::ENFORCE_EGRESS, policy.is_some());
        for key in [false, true].into_iter().flat_map(|v6| [0, 1].map(|pod| Who::Pod(pod).ip(v6))) {
            let key = EndpointKey::from_ip(key);
            if let Some(entry) = endpoints.get(&key)? {
                endpoints.upsert(&key, &EndpointEntry { policy: policy.unwrap_or(0), flags, ..entry })?;
            }
        }
        let table = typed::<Config>(&self.object)?;
        if let Some(mut config) = table.get(&0)? {
            config.revision += 1;
            table.upsert(&0, &config)?;
        }
        Ok(())
    }
}
