//! What calls to services cost that are translated packet by packet: packets of established connections between two pods of the node,
//! one of which the client has called by a service's address, and one by the backend's.
//!
//! A translated packet is not what it was, so it cannot be run again as it is: packets of both connections are measured by single
//! runs too, in turns, and the difference is what the service costs. Between single runs caches cool down; so it is rather too much.

use dataplane_abi::backends::{BackendEntry, BackendState, Backends};
use dataplane_abi::config::{Config, ConfigFlags};
use dataplane_abi::program::Program;
use dataplane_abi::services::{ServiceEntry, ServiceFlags, ServiceKey, ServiceScope, Services};
use dataplane_abi::{Addr, Be16};

use super::frames::{ACK, End, SYN, TCP, UDP, tcp, udp};
use super::{Case, Figure, GATEWAY_MAC, MeasureError, Node, POD_MAC, REDIRECTED, Who, mac, median, typed};

/// Turns, so that what else the machine does falls on both alike.
const ROUNDS: usize = 9;
/// Port of the service and of its backend.
const PORT: u16 = 80;
/// The client's ports of both connections, and of others.
const DIRECT: u16 = 6000;
const CALL: u16 = 6001;
const NUMBER: u32 = 1;

impl Node {
    /// Measures packets of both protocols, with and without a service.
    pub(super) fn measure_services(
        &self,
        v6: bool,
        samples: usize,
        figures: &mut Vec<Figure>,
    ) -> Result<(), MeasureError> {
        self.write_service(v6)?;
        let samples = samples.div_ceil(ROUNDS).max(3);
        for proto in [TCP, UDP] {
            let (direct, call) = (Who::Pod(1), Who::Service);
            self.connect(proto, v6, DIRECT, direct)?;
            self.connect(proto, v6, CALL, call)?;
            let (program, device) = (Program::FromContainer, self.devices.pods[0]);
            let frame = |port: u16, to: Who| out(proto, v6, port, to, ACK);
            let (mut plain, mut more) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                plain.push(self.repeated(program, device, &frame(DIRECT, direct), samples, REDIRECTED)?);
                let single = |port: u16, to: Who| {
                    self.single(program, samples, REDIRECTED, |_| (device, frame(port, to)))
                };
                let without = single(DIRECT, direct)?;
                more.push(single(CALL, call)? - without);
            }
            let plain = median(plain);
            let cases = if proto == TCP {
                [Case::DirectTcp, Case::CallTcp]
            } else {
                [Case::DirectUdp, Case::CallUdp]
            };
            for (case, ns) in cases.into_iter().zip([plain, plain + median(more)]) {
                figures.push(Figure { program, case, v6, to: "pod", ns });
            }
        }
        Ok(())
    }

    /// One backend, the second pod, by both protocols.
    fn write_service(&self, v6: bool) -> Result<(), MeasureError> {
        let table = typed::<Config>(&self.object)?;
        if let Some(mut config) = table.get(&0)? {
            config.flags |= ConfigFlags::SERVICE_PACKETS;
            table.upsert(&0, &config)?;
        }
        let (services, backends) = (typed::<Services>(&self.object)?, typed::<Backends>(&self.object)?);
        let (address, family) = Addr::from_ip(Who::Service.ip(v6));
        for proto in [TCP, UDP] {
            let number = NUMBER + u32::from(proto) + if v6 { 256 } else { 0 };
            let backend = BackendEntry {
                addr: Addr::from_ip(Who::Pod(1).ip(v6)).0,
                service: number,
                port: Be16::new(PORT),
                family: family as u8,
                proto,
                state: BackendState::Active as u8,
                pad: [0; 3],
            };
            backends.upsert(&number, &backend)?;
            let key = ServiceKey::frontend(address, family, Be16::new(PORT), proto, ServiceScope::Internal);
            services.upsert(&key.slot(1), &ServiceEntry::slot(number, number))?;
            services.upsert(&key, &ServiceEntry::frontend(number, 1, 0, ServiceFlags::CLUSTER_IP))?;
        }
        Ok(())
    }

    /// A connection with whom the client has called; both ends have spoken.
    fn connect(&self, proto: u8, v6: bool, port: u16, to: Who) -> Result<(), MeasureError> {
        let (program, [client, server]) = (Program::FromContainer, self.devices.pods);
        self.run(program, client, &out(proto, v6, port, to, SYN))?;
        let (from, to_client) = (Who::Pod(1).end(v6, PORT), Who::Pod(0).end(v6, port));
        let answer = transport(proto, [mac(GATEWAY_MAC, 1), mac(POD_MAC, 1)], from, to_client, SYN | ACK);
        self.run(program, server, &answer)?;
        self.run(program, client, &out(proto, v6, port, to, ACK))?;
        Ok(())
    }
}

/// A packet of the client.
fn out(proto: u8, v6: bool, port: u16, to: Who, flags: u8) -> Vec<u8> {
    let macs = [mac(GATEWAY_MAC, 0), mac(POD_MAC, 0)];
    transport(proto, macs, Who::Pod(0).end(v6, port), to.end(v6, PORT), flags)
}

fn transport(proto: u8, [to, from]: [[u8; 6]; 2], src: End, dst: End, flags: u8) -> Vec<u8> {
    if proto == TCP { tcp(to, from, src, dst, flags) } else { udp(to, from, src, dst) }
}
