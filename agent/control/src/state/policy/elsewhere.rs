//! Pods of other nodes, as the agents there tell of them: who has an address, and who an identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use agent_policy::NamedPort;
use ipnet::IpNet;

use crate::objects::{EndpointObject, ObjectName};

/// What a change touches.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Addresses whose owner may be another one now.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Identities whose users have given ports other names than before.
    pub(super) ports: Vec<u32>,
    /// Identities that nobody has any more.
    pub(super) left: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    by_name: BTreeMap<Arc<ObjectName>, EndpointObject>,
    /// Each once. Nearly always one alone, for which a set would take the room of a dozen.
    by_address: BTreeMap<IpAddr, Vec<Arc<ObjectName>>>,
    /// Who has an identity.
    users: BTreeMap<u32, BTreeSet<Arc<ObjectName>>>,
}

impl Elsewhere {
    /// What is said of a pod now; `None`: it is gone.
    pub(super) fn set(&mut self, name: &Arc<ObjectName>, object: Option<EndpointObject>) -> Moved {
        let mut moved = Moved::default();
        if self.by_name.get(name) == object.as_ref() {
            return moved;
        }
        let before = self.by_name.remove(name);
        if let Some(before) = &before {
            for address in &before.addresses {
                if let Some(names) = self.by_address.get_mut(address) {
                    names.retain(|other| other != name);
                    if names.is_empty() {
                        self.by_address.remove(address);
                    }
                }
            }
            moved.addresses.extend(&before.addresses);
        }
        if let Some(object) = &object {
            for address in &object.addresses {
                let names = self.by_address.entry(*address).or_default();
                if !names.contains(name) {
                    names.reserve_exact(1);
                    names.push(Arc::clone(name));
                }
            }
            moved.addresses.extend(&object.addresses);
        }
        self.set_user(name, before.as_ref(), object.as_ref(), &mut moved);
        if let Some(object) = object {
            // Of the name there is one for all.
            self.by_name.insert(Arc::clone(name), EndpointObject { name: Arc::clone(name), ..object });
        }
        moved
    }

    fn set_user(
        &mut self,
        name: &Arc<ObjectName>,
        before: Option<&EndpointObject>,
        now: Option<&EndpointObject>,
        moved: &mut Moved,
    ) {
        // 0 is nobody's.
        let number = |object: Option<&EndpointObject>| object.map_or(0, |object| object.identity);
        let (had, has) = (number(before), number(now));
        let ports = |object: Option<&EndpointObject>| object.map(|object| object.named_ports.clone());
        let (ports_before, ports_now) = (ports(before).unwrap_or_default(), ports(now).unwrap_or_default());
        if had == has {
            if has != 0 && ports_before != ports_now {
                moved.ports.push(has);
            }
            return;
        }
        if let Some(users) = self.users.get_mut(&had) {
            users.remove(name);
            if users.is_empty() {
                self.users.remove(&had);
                moved.left = true;
            }
            if !ports_before.is_empty() {
                moved.ports.push(had);
            }
        }
        if has != 0 {
            self.users.entry(has).or_default().insert(Arc::clone(name));
            if !ports_now.is_empty() {
                moved.ports.push(has);
            }
        }
    }

    /// Addresses that somebody says something of.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.by_address.keys()
    }

    /// Those of them in a CIDR.
    pub(super) fn addresses_in(&self, cidr: &IpNet) -> impl Iterator<Item = &IpAddr> {
        let (first, last) = (cidr.network(), cidr.broadcast());
        self.by_address.range(first..=last).map(|(address, _)| address)
    }

    /// Whom an address is said to belong to. Of several the latest has it: the others are of pods that are gone.
    pub(super) fn at(&self, address: &IpAddr) -> Option<&EndpointObject> {
        let names = self.by_address.get(address)?;
        names
            .iter()
            .filter_map(|name| self.by_name.get(name))
            .max_by_key(|object| (&*object.created, &*object.name))
    }

    /// What is said of a pod.
    pub(super) fn named(&self, pod: &ObjectName) -> Option<&EndpointObject> {
        self.by_name.get(pod)
    }

    /// Whether anybody has an identity.
    pub(super) fn has_users(&self, identity: u32) -> bool {
        self.users.contains_key(&identity)
    }

    /// The ports that those with an identity have given names, sorted.
    pub(super) fn named_ports(&self, identity: u32) -> Vec<NamedPort> {
        let users = self.users.get(&identity).into_iter().flatten();
        let ports: BTreeSet<&NamedPort> =
            users.filter_map(|name| self.by_name.get(name)).flat_map(|object| &object.named_ports).collect();
        ports.into_iter().cloned().collect()
    }
}
